"""Bodies of the gateway's HTTP API."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Literal, Self, cast

from pydantic import BaseModel, ConfigDict, StrictInt, field_validator

from dozen_gateway.domain.key_terms import (
    KeyTerms,
    TermChanges,
    changes_to,
    read_credits,
    some_limits,
    write_credits,
)
from dozen_gateway.domain.keys import ANY, DEFAULT_GRACE_SECONDS, NO_LABELS, ApiKey, Budget, BudgetPeriod
from dozen_gateway.domain.limits import RateLimits


class _Strict(BaseModel):
    """A body whose misspelt fields are refused, as what they mean to bound would be unbounded."""

    model_config = ConfigDict(extra="forbid")


class Limits(_Strict):
    """Limits of a key; null does not bound."""

    requests_per_minute: StrictInt | None = None
    tokens_per_minute: StrictInt | None = None
    concurrent_requests: StrictInt | None = None


class KeyBudget(_Strict):
    """What a key may spend."""

    credits: str
    """Exactly, such as `10.5`."""
    period: BudgetPeriod

    @field_validator("credits")
    @classmethod
    def _amount(cls, text: str) -> str:
        if read_credits(text) is None:
            raise ValueError("must be an amount such as 10.5, with at most nine decimals")
        return text

    @classmethod
    def of(cls, budget: Budget) -> Self:
        """Describe a budget."""
        return cls(credits=write_credits(budget.nano_credits), period=budget.period)

    def budget(self) -> Budget:
        """Give the budget."""
        return Budget(read_credits(self.credits) or 0, self.period)


class _Terms(_Strict):
    labels: dict[str, str] | None = None
    endpoints: list[str] | None = None
    models: list[str] | None = None
    limits: Limits | None = None
    budget: KeyBudget | None = None
    expires_at: StrictInt | None = None

    def _all(self, name: str) -> KeyTerms:
        return KeyTerms(
            name=name,
            labels=self.labels or NO_LABELS,
            endpoints=frozenset(self.endpoints) if self.endpoints else ANY,
            models=frozenset(self.models) if self.models else ANY,
            limits=some_limits(RateLimits(**self.limits.model_dump())) if self.limits else None,
            budget=self.budget.budget() if self.budget else None,
            expires_at=None if self.expires_at is None else float(self.expires_at),
        )


class CreateKeyRequest(_Terms):
    """Body of `POST /v1/keys`."""

    name: str

    def terms(self) -> KeyTerms:
        """Give the terms."""
        return self._all(self.name)


class UpdateKeyRequest(_Terms):
    """Body of `POST /v1/keys/{id}`: what is absent stays, and null clears."""

    name: str = ""

    def changes(self) -> TermChanges:
        """Give the terms that are in the body."""
        terms = changes_to(self._all(self.name))
        return cast("TermChanges", {name: terms[name] for name in self.model_fields_set})  # type: ignore[literal-required]


class RotateKeyRequest(_Strict):
    """Body of `POST /v1/keys/{id}/rotate`, which may be absent."""

    grace_seconds: StrictInt = round(DEFAULT_GRACE_SECONDS)


class KeyObject(BaseModel):
    """A key without its secret."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    created_at: int
    expires_at: int | None
    labels: dict[str, str]
    endpoints: list[str]
    """Empty allows all, as do no models."""
    models: list[str]
    limits: Limits | None
    budget: KeyBudget | None
    previous_secret_expires_at: int | None

    @classmethod
    def of(cls, key: ApiKey) -> "KeyObject":
        """Describe a key."""
        return cls(
            id=key.id,
            name=key.name,
            created_at=int(key.created_at),
            expires_at=None if key.expires_at is None else int(key.expires_at),
            labels=dict(key.labels),
            endpoints=sorted(key.endpoints),
            models=sorted(key.models),
            limits=Limits(**asdict(key.limits)) if key.limits else None,
            budget=KeyBudget.of(key.budget) if key.budget else None,
            previous_secret_expires_at=None if key.previous_until is None else int(key.previous_until),
        )


class CreatedKey(KeyObject):
    """A key with its whole text, which is shown only when it has a new secret."""

    value: str


class KeyList(BaseModel):
    """A page of keys."""

    object: Literal["list"] = "list"
    data: list[KeyObject]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, keys: Sequence[ApiKey], has_more: bool) -> "KeyList":
        """Describe a page."""
        data = [KeyObject.of(key) for key in keys]
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=first, last_id=last, has_more=has_more)


class DeletedKey(BaseModel):
    """Answer to `DELETE /v1/keys/{id}`."""

    id: str
    object: Literal["api_key"] = "api_key"
    deleted: Literal[True] = True
