"""API keys: `dz-<account>-<key id>-<secret>`, of which only the SHA-256 of the secret is kept."""

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

ACCOUNT_ID = re.compile(r"[a-z0-9]{1,32}")
_API_KEY = re.compile(r"dz-([a-z0-9]{1,32})-([A-Za-z0-9_]{1,64})-([A-Za-z0-9]{1,128})")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key of an account."""

    id: str
    account: str
    name: str
    secret_sha256: bytes = field(repr=False)
    created_at: datetime
    revoked_at: datetime | None = None


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


def is_secret_of(key: ApiKey, parts: KeyParts) -> bool:
    """Tell, in constant time, whether the parts belong to a key."""
    known = hmac.compare_digest(hash_secret(parts.secret), key.secret_sha256)
    return known and key.account == parts.account


def mask_key(text: str) -> str:
    """Give a key in the form that may be shown to the one who sent it."""
    return f"{text[:3]}{'*' * 8}{text[-4:]}" if len(text) > 16 else "*" * len(text)
