"""API keys: `dz-<account>-<key id>-<secret>`, of which only the SHA-256 of the secret is kept."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from dozen_gateway.domain.limits import RateLimits

ACCOUNT_ID = re.compile(r"[a-z0-9]{1,32}")
_API_KEY = re.compile(r"dz-([a-z0-9]{1,32})-([A-Za-z0-9_]{1,64})-([A-Za-z0-9]{1,128})")

DEFAULT_GRACE_SECONDS = 3600.0
"""How long the secret from before a rotation is accepted, unless said otherwise."""
LONGEST_GRACE_SECONDS = 30 * 24 * 3600.0

# One object for all the keys that have none, of which there may be a hundred thousand in memory.
ANY: frozenset[str] = frozenset()
"""A scope that leaves everything open."""
NO_LABELS: Mapping[str, str] = MappingProxyType({})


class BudgetPeriod(StrEnum):
    """What charges count against a budget."""

    MONTH = "month"
    """Those of the calendar month, in UTC."""
    TOTAL = "total"


@dataclass(frozen=True, slots=True)
class Budget:
    """What a key may spend of its account's balance."""

    nano_credits: int
    period: BudgetPeriod


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of an account. Its times are Unix seconds, so that a decision compares plain numbers."""

    id: str
    account: str
    name: str
    secret_sha256: bytes = field(repr=False)
    created_at: float
    revoked_at: float | None = None
    expires_at: float | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: NO_LABELS)
    endpoints: frozenset[str] = ANY
    """Paths that it may call, with what is below them; empty allows all."""
    models: frozenset[str] = ANY
    """Models that it may use; empty allows all."""
    limits: RateLimits | None = None
    budget: Budget | None = None
    previous_sha256: bytes | None = field(default=None, repr=False)
    """The secret from before the last rotation."""
    previous_until: float | None = None
    """When that ceases to be accepted."""
    version: int = 1
    """Grows with every change, so that what is older never replaces what is newer."""


class KeyParts(NamedTuple):
    """What a key says of itself."""

    account: str
    id: str
    secret: str


def write_key(parts: KeyParts) -> str:
    """Write a key as clients send it."""
    return f"dz-{parts.account}-{parts.id}-{parts.secret}"


def read_key(text: str) -> KeyParts | None:
    """Read a key; None where the text is none of ours."""
    found = _API_KEY.fullmatch(text)
    return KeyParts(*found.groups()) if found else None


def hash_secret(secret: str) -> bytes:
    """Give what is kept of a secret. It is random and long, so that a fast hash is enough."""
    return hashlib.sha256(secret.encode()).digest()


def is_secret_of(key: ApiKey, parts: KeyParts, now: float) -> bool:
    """Tell, in constant time, whether the parts belong to a key: to its secret, or to the one before it."""
    shown = hash_secret(parts.secret)
    known = hmac.compare_digest(shown, key.secret_sha256)
    if key.previous_sha256 is not None and key.previous_until is not None and now < key.previous_until:
        known |= hmac.compare_digest(shown, key.previous_sha256)
    return known and key.account == parts.account


def is_usable(key: ApiKey, now: float) -> bool:
    """Tell whether a key is neither revoked, by whatever clock, nor expired."""
    return key.revoked_at is None and (key.expires_at is None or now < key.expires_at)


def allows_endpoint(key: ApiKey, path: str) -> bool:
    """Tell whether a key may call a path: one in its scope, or below one."""
    scope = key.endpoints
    return not scope or path in scope or any(path.startswith(f"{allowed}/") for allowed in scope)


def allows_model(key: ApiKey, model: str) -> bool:
    """Tell whether a key may use a model."""
    return not key.models or model in key.models


def is_restricted(key: ApiKey) -> bool:
    """Tell whether a key may do less than its account.

    Such a key may not administer keys, or it could make itself one that may do all.
    """
    return bool(key.endpoints or key.models or key.limits or key.budget or key.expires_at is not None)


def with_secret(key: ApiKey, secret_sha256: bytes, now: float, grace: float) -> ApiKey:
    """Give a key another secret; for `grace` seconds the present one is accepted too.

    There are two at most, so this ends the grace of one before.
    """
    return replace(
        key,
        secret_sha256=secret_sha256,
        previous_sha256=key.secret_sha256 if grace else None,
        previous_until=round(now + grace, 6) if grace else None,
        version=key.version + 1,
    )


def revoked(key: ApiKey, now: float) -> ApiKey:
    """Give a key that is refused from now on."""
    return replace(key, revoked_at=now, version=key.version + 1)


def mask_key(text: str) -> str:
    """Give a key in the form that may be shown to the one who sent it."""
    return f"{text[:3]}{'*' * 8}{text[-4:]}" if len(text) > 16 else "*" * len(text)
