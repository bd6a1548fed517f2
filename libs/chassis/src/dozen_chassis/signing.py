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
    caller, dot, _ = token.partition(".")
    return caller if dot and hmac.compare_digest(caller_token(callee_key, caller), token) else None
