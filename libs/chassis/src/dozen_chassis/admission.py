"""The signed headers with which the gateway admits a request, and their verification."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec

from dozen_chassis.errors import NotAdmitted

PREFIX = "x-dozen-"
SIGNATURE_HEADER = "x-dozen-admission"
REQUEST_ID_HEADER = "x-request-id"
OPERATION_HEADER = "x-dozen-operation"

_PREFIX, _REQUEST_ID = PREFIX.encode(), REQUEST_ID_HEADER.encode()
_SORTED = msgspec.json.Encoder(order="sorted")


@dataclass(frozen=True, slots=True)
class Admission:
    """What the gateway says of a request: who asks, under which id, and the facts it decided on."""

    account: str
    key: str
    request_id: str
    operation: str
    facts: Mapping[str, str] = field(default_factory=dict)
    """The other `x-dozen-*` headers, by their name without the prefix."""

    def headers(self, secret: bytes, expires_at: int) -> dict[str, str]:
        """Give the signed headers; `expires_at` is in Unix seconds."""
        headers = {
            "x-dozen-account": self.account,
            "x-dozen-key": self.key,
            OPERATION_HEADER: self.operation,
            REQUEST_ID_HEADER: self.request_id,
        }
        for name, value in self.facts.items():
            headers[PREFIX + name] = value
        headers[SIGNATURE_HEADER] = f"{expires_at}.{_signature(headers, secret, str(expires_at))}"
        return headers


def signed_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Give those of the headers of a request that may be the gateway's."""
    return {name: value.decode("latin-1") for raw, value in headers if (name := _signed_name(raw))}


def verify(headers: Mapping[str, str], operation: str, secret: bytes, now: float) -> Admission:
    """Check the signed headers of a request; raise `NotAdmitted` unless all of them are the gateway's.

    `operation` is the method and path that is being served, such as `POST /v1/chat/completions`; an
    admission for another one is refused.
    """
    names = [name for name in headers if name.startswith(PREFIX) or name == REQUEST_ID_HEADER]
    return verify_signed({name: headers[name] for name in names}, operation, secret, now)


def verify_signed(signed: dict[str, str], operation: str, secret: bytes, now: float) -> Admission:
    """Check what `signed_headers` gave, and use it up; otherwise as `verify`."""
    expires, _, signature = signed.pop(SIGNATURE_HEADER, "").partition(".")
    expected = _signature(signed, secret, expires)
    if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
        raise NotAdmitted()
    if int(expires) < now:
        raise NotAdmitted("The admission of this request has expired.")
    if signed.pop(OPERATION_HEADER, None) != operation:
        raise NotAdmitted("The admission of this request is for another operation.")
    return Admission(
        account=signed.pop("x-dozen-account"),
        key=signed.pop("x-dozen-key"),
        request_id=signed.pop(REQUEST_ID_HEADER),
        operation=operation,
        facts={name[len(PREFIX) :]: value for name, value in signed.items()},
    )


@lru_cache(1024)
def _signed_name(name: bytes) -> str | None:
    return name.decode("latin-1") if name.startswith(_PREFIX) or name == _REQUEST_ID else None


def _signature(headers: Mapping[str, str], secret: bytes, expires_at: str) -> str:
    # As JSON, so that no value can pass for the end of another and the start of a further one.
    inner, outer = _prepared(secret)
    inner, outer = inner.copy(), outer.copy()
    inner.update(_SORTED.encode([expires_at, headers]))
    outer.update(inner.digest())
    return outer.hexdigest()


@lru_cache(64)
def _prepared(secret: bytes) -> "tuple[hashlib._Hash, hashlib._Hash]":
    """Give the halves of HMAC-SHA256 (RFC 2104) with a key of at most a block; to copy them costs half."""
    block = secret.ljust(64, b"\0")
    inner, outer = (bytes(byte ^ pad for byte in block) for pad in (0x36, 0x5C))
    return hashlib.sha256(inner), hashlib.sha256(outer)
