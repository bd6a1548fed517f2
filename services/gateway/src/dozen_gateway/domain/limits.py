"""Rate limits: what they bound, and what a request counts against them."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

LARGEST_LIMIT = 10**12


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Bounds on what a key, an account, or an account with one model may ask for; None bounds nothing."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None


AccountLimits = Mapping[str, RateLimits]
"""Of an account by model; those of all its models together under the empty name."""


class Kind(StrEnum):
    """Whom a limit is set for."""

    KEY = "key"
    ACCOUNT = "account"
    MODEL = "model"
    """An account with one model."""

    __hash__ = str.__hash__  # the one of enumerations is slow, and each request looks up several limits

    @property
    def words(self) -> str:
        """Name it to a client."""
        return "account with this model" if self is Kind.MODEL else str(self)


class Measure(StrEnum):
    """What is counted; by OpenAI's names, which errors give as their `type`."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    CONCURRENT = "concurrent_requests"

    __hash__ = str.__hash__

    @property
    def words(self) -> str:
        """Name it to a client."""
        return "concurrent requests" if self is Measure.CONCURRENT else f"{self} per minute"


class Subject(NamedTuple):
    """Whose what is limited."""

    account: str
    kind: Kind
    id: str
    """Of the key or the model; empty for an account with all its models."""
    measure: Measure

    def __str__(self) -> str:
        return f"{self.account}/{self.kind}/{self.measure}/{self.id}"


class Cost(NamedTuple):
    """What a request counts against one limit."""

    subject: Subject
    limit: int
    amount: int
    drawn_at: int = 0
    """When the database granted it, in its nanoseconds; 0 until it is taken."""

    @property
    def ahead(self) -> int:
        """Give how many permits are drawn at once: for half a second, or a sixteenth of the slots."""
        return self.limit // (16 if self.subject.measure is Measure.CONCURRENT else 120)


@dataclass(frozen=True, slots=True)
class Exceeded:
    """A limit that has no room for a request."""

    cost: Cost
    used: int
    """What of the limit is in use."""
    retry_after: float
    """Seconds until there is room, unless others take it first."""
    too_large: bool = False
    """Whether the request would never fit."""


def costs(
    key_id: str,
    key_limits: RateLimits | None,
    account: str,
    account_limits: AccountLimits | None,
    model: str,
    tokens: int,
) -> tuple[Cost, ...]:
    """Give what a request counts against the limits of its key, its account, and the account with its model.

    `tokens` are the largest input and output that it can have, 0 where it is not charged in tokens.
    """
    found: list[Cost] = []
    if key_limits is not None:
        found += _costs(account, Kind.KEY, key_id, key_limits, tokens)
    if account_limits:
        if (limits := account_limits.get("")) is not None:
            found += _costs(account, Kind.ACCOUNT, "", limits, tokens)
        if (limits := account_limits.get(model)) is not None:
            found += _costs(account, Kind.MODEL, model, limits, tokens)
    return tuple(found)


def worst(refusals: Iterable[Exceeded]) -> Exceeded | None:
    """Give the refusal that lasts longest."""
    return max(refusals, key=lambda refusal: (refusal.too_large, refusal.retry_after), default=None)


def _costs(account: str, kind: Kind, id: str, limits: RateLimits, tokens: int) -> Iterator[Cost]:
    if (limit := limits.requests_per_minute) is not None:
        yield Cost(Subject(account, kind, id, Measure.REQUESTS), limit, 1)
    if tokens and (limit := limits.tokens_per_minute) is not None:
        yield Cost(Subject(account, kind, id, Measure.TOKENS), limit, tokens)
    if (limit := limits.concurrent_requests) is not None:
        yield Cost(Subject(account, kind, id, Measure.CONCURRENT), limit, 1)
