"""Requests for keys and secrets that can be repeated: their answer is the same, though no secret is kept."""

import hashlib
import hmac
import json
from dataclasses import dataclass

from dozen_gateway.domain.key_terms import KeyTerms
from dozen_gateway.domain.keys import ApiKey

REMEMBERED_SECONDS = 24 * 3600.0
"""How long an idempotency key stands for its request."""


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A request under an idempotency key, and what it asks for."""

    account: str
    idempotency_key: str
    operation: str
    fingerprint: bytes
    """What equal requests have in common."""


@dataclass(frozen=True, slots=True)
class Answered:
    """What was done for a request."""

    fingerprint: bytes
    key: ApiKey
    """As it was in the answer."""
    at: float


def is_idempotency_key(text: str) -> bool:
    """Tell whether a text is fit for an idempotency key: 1 to 255 printable ASCII characters."""
    return 0 < len(text) <= 255 and text.isascii() and text.isprintable()


def create_request(account: str, idempotency_key: str, terms: KeyTerms) -> KeyRequest:
    """Describe a request for a new key."""
    limits, budget = terms.limits, terms.budget
    asked: object = [
        terms.name,
        dict(terms.labels),
        sorted(terms.endpoints),
        sorted(terms.models),
        limits and [limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_requests],
        budget and [budget.nano_credits, budget.period],
        terms.expires_at,
    ]
    return _request(account, idempotency_key, "create", asked)


def rotate_request(account: str, idempotency_key: str, key_id: str, grace: float) -> KeyRequest:
    """Describe a request for another secret."""
    return _request(account, idempotency_key, "rotate", [key_id, grace])


def derive_secret(server_key: bytes, request: KeyRequest, key_id: str, at: float) -> str:
    """Give the secret that a request is answered with: nobody without the server's key can tell it.

    What was done, and when, is part of it, so that an idempotency key that is used again after its day
    does not bring back an old secret.
    """
    named = [request.operation, request.account, request.idempotency_key, key_id, round(at * 1_000_000)]
    return hmac.digest(server_key, json.dumps(named).encode(), hashlib.sha256)[:24].hex()


def _request(account: str, idempotency_key: str, operation: str, asked: object) -> KeyRequest:
    text = json.dumps([operation, asked], sort_keys=True)
    return KeyRequest(account, idempotency_key, operation, hashlib.sha256(text.encode()).digest())
