"""The terms of an API key: what it is called and what it may do, and the rules of that."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypedDict

from dozen_gateway.domain.keys import ANY, NO_LABELS, ApiKey, Budget
from dozen_gateway.domain.limits import RateLimits
from dozen_gateway.domain.route_table import ROUTES

MOST_NAME_CHARACTERS = 100
MOST_LABELS = 16
MOST_LABEL_CHARACTERS = 64
MOST_LABEL_VALUE_CHARACTERS = 256
MOST_SCOPES = 100
MOST_MODEL_CHARACTERS = 256
LARGEST_LIMIT = 10**9
NANO = 1_000_000_000
"""Nano-credits of one credit."""
LARGEST_BUDGET = 10**9 * NANO
LATEST_EXPIRY = 253_402_300_799
"""The end of the year 9999, in Unix seconds."""

ENDPOINTS = frozenset(route.pattern.partition("/{")[0] for route in ROUTES)
"""What a key's scope may name: the paths of the route table, up to the first parameter."""

_CREDITS = re.compile(r"(\d{1,10})(?:\.(\d{1,9}))?", re.ASCII)


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What a key is called and what it may do; the fields are those of `ApiKey`."""

    name: str
    labels: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)
    endpoints: frozenset[str] = ANY
    models: frozenset[str] = ANY
    limits: RateLimits | None = None
    budget: Budget | None = None
    expires_at: float | None = None


class TermChanges(TypedDict, total=False):
    """The terms that are to change."""

    name: str
    labels: Mapping[str, str]
    endpoints: frozenset[str]
    models: frozenset[str]
    limits: RateLimits | None
    budget: Budget | None
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Fault:
    """A term that is not valid, and what it should be."""

    param: str
    should: str


def some_limits(limits: RateLimits) -> RateLimits | None:
    """Give the limits; None where they bound nothing."""
    return None if limits == RateLimits() else limits


def new_key(key_id: str, account: str, terms: KeyTerms, secret_sha256: bytes, now: float) -> ApiKey:
    """Make a key."""
    return replace(ApiKey(key_id, account, terms.name, secret_sha256, now), **changes_to(terms))


def terms_of(key: ApiKey) -> KeyTerms:
    """Give the terms of a key."""
    return KeyTerms(key.name, key.labels, key.endpoints, key.models, key.limits, key.budget, key.expires_at)


def changes_to(terms: KeyTerms) -> TermChanges:
    """Give the changes that lead to these terms from any others."""
    return TermChanges(
        name=terms.name,
        labels=terms.labels,
        endpoints=terms.endpoints,
        models=terms.models,
        limits=terms.limits,
        budget=terms.budget,
        expires_at=terms.expires_at,
    )


def changed(key: ApiKey, changes: TermChanges) -> ApiKey:
    """Change the terms of a key; where they stay as they are, so does the key."""
    new = replace(key, **changes)
    return key if new == key else replace(new, version=key.version + 1)


def faults(terms: KeyTerms) -> Iterator[Fault]:
    """Give what is not valid in the terms of a key."""
    if not _is_text(terms.name, MOST_NAME_CHARACTERS):
        yield Fault("name", f"must have 1 to {MOST_NAME_CHARACTERS} characters")
    if len(terms.labels) > MOST_LABELS or not all(map(_is_label, terms.labels.items())):
        yield Fault(
            "labels",
            f"must be at most {MOST_LABELS}, with names of 1 to {MOST_LABEL_CHARACTERS} characters"
            f" and values of at most {MOST_LABEL_VALUE_CHARACTERS}",
        )
    if unknown := sorted(terms.endpoints - ENDPOINTS):
        yield Fault("endpoints", f"must be of {', '.join(sorted(ENDPOINTS))}, and not {unknown[0]!r:.100}")
    if len(terms.models) > MOST_SCOPES or not all(
        _is_text(model, MOST_MODEL_CHARACTERS) for model in terms.models
    ):
        yield Fault("models", f"must be at most {MOST_SCOPES} ids of 1 to {MOST_MODEL_CHARACTERS} characters")
    if terms.limits is not None and not all(map(_is_limit, _bounds(terms.limits))):
        yield Fault("limits", f"must each be absent or between 1 and {LARGEST_LIMIT}")
    if terms.budget is not None and not 0 < terms.budget.nano_credits <= LARGEST_BUDGET:
        yield Fault("budget", f"must be above 0 and at most {LARGEST_BUDGET // NANO} credits")
    if terms.expires_at is not None and not 0 <= terms.expires_at <= LATEST_EXPIRY:
        yield Fault("expires_at", "must be in Unix seconds, and before the year 10000")


def read_credits(text: str) -> int | None:
    """Read an amount in credits, such as `10.5`, exactly, in nano-credits; None where it is none."""
    found = _CREDITS.fullmatch(text)
    return int(found[1]) * NANO + int((found[2] or "").ljust(9, "0")) if found else None


def write_credits(nano_credits: int) -> str:
    """Write an amount in credits, exactly, such as `10.500000000`."""
    whole, fraction = divmod(nano_credits, NANO)
    return f"{whole}.{fraction:09}"


def _is_text(text: str, most: int, *, least: int = 1) -> bool:
    # PostgreSQL keeps no text with a null character in it.
    return least <= len(text) <= most and "\0" not in text


def _is_label(label: tuple[str, str]) -> bool:
    name, value = label
    return _is_text(name, MOST_LABEL_CHARACTERS) and _is_text(value, MOST_LABEL_VALUE_CHARACTERS, least=0)


def _is_limit(limit: int | None) -> bool:
    return limit is None or 1 <= limit <= LARGEST_LIMIT


def _bounds(limits: RateLimits) -> Collection[int | None]:
    return limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_requests
