"""Keys derived from one master secret, and the tokens that services show each other."""

import hashlib
import hmac


def derive_key(master: bytes, purpose: str) -> bytes:
    """Derive the key for one purpose, such as `admission:chat`: HMAC-SHA256 (RFC 2104) of the purpose."""
    return hmac.digest(master, purpose.encode(), hashlib.sha256)


def caller_token(callee_key: bytes, caller: str) -> str:
    """Make the token with which a caller identifies itself to the service that holds `callee_key`."""
    return f"{caller}.{hmac.digest(callee_key, caller.encode(), hashlib.sha256).hex()}"


def verify_caller(callee_key: bytes, token: str) -> str | None:
    """Return the caller's name, or None where the token is not one that `caller_token` made."""
    caller = token.partition(".")[0]
    expected = caller_token(callee_key, caller)
    return caller if hmac.compare_digest(expected.encode(), token.encode()) else None
