"""The signed headers with which the gateway admits a request, and their verification."""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from dozen_chassis.errors import NotAdmitted

PREFIX = "x-dozen-"
SIGNATURE_HEADER = "x-dozen-admission"
REQUEST_ID_HEADER = "x-request-id"
OPERATION_HEADER = "x-dozen-operation"


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
        headers = {PREFIX + name: value for name, value in self.facts.items()}
        headers |= {
            "x-dozen-account": self.account,
            "x-dozen-key": self.key,
            OPERATION_HEADER: self.operation,
            REQUEST_ID_HEADER: self.request_id,
        }
        headers[SIGNATURE_HEADER] = f"{expires_at}.{_signature(headers, secret, str(expires_at))}"
        return headers


def verify(headers: Mapping[str, str], operation: str, secret: bytes, now: float) -> Admission:
    """Check the signed headers of a request; raise `NotAdmitted` unless all of them are the gateway's.

    `operation` is the method and path that is being served, such as `POST /v1/chat/completions`; an
    admission for another one is refused.
    """
    expires, _, signature = headers.get(SIGNATURE_HEADER, "").partition(".")
    signed = {
        name: value
        for name, value in headers.items()
        if name == REQUEST_ID_HEADER or (name.startswith(PREFIX) and name != SIGNATURE_HEADER)
    }
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
        facts={name.removeprefix(PREFIX): value for name, value in signed.items()},
    )


def _signature(headers: Mapping[str, str], secret: bytes, expires_at: str) -> str:
    # As JSON, so that no value can pass for the end of another and the start of a further one.
    text = msgspec.json.encode([expires_at, sorted(headers.items())])
    return hmac.digest(secret, text, "sha256").hex()
