"""API keys, without their secrets, and what they may do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class RateLimits:
    """What a key may ask for; an absent limit does not bound it."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_requests: int | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """What a key may spend, in nano-credits: in each `month`, or in `total`."""

    nano_credits: int
    period: str


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What a key is called and what it may do; no endpoints or models are all of them."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    endpoints: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    limits: RateLimits = RateLimits()
    budget: Budget | None = None


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key."""

    id: str
    account: str
    terms: KeyTerms
    created_at: datetime
    revoked_at: datetime | None = None
    expires_at: datetime | None = None
    previous_secret_expires_at: datetime | None = None
    """Until then the secret from before the last rotation is accepted too."""

    def state(self, now: datetime) -> str:
        """Say whether the key is `active`, `expired` or `revoked`."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= now else "active"

    def is_rotating(self, now: datetime) -> bool:
        """Tell whether the secret from before the last rotation is still accepted."""
        previous = self.previous_secret_expires_at
        return self.state(now) == "active" and previous is not None and previous > now
