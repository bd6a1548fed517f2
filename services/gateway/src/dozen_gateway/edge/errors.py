"""Errors, in the words of the API that a path belongs to."""

import msgspec
from starlette.types import Send

from dozen_chassis.errors import ServiceError
from dozen_gateway.edge.question import MESSAGES

# As in Anthropic's API, where neither the status nor OpenAI's type says more.
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def error_body(path: str, error: ServiceError, request_id: str) -> bytes:
    """Give OpenAI's error object, or on the paths of Anthropic's API theirs."""
    if not path.startswith(MESSAGES):
        return msgspec.json.encode(error.body())
    status, kind = error.http
    otherwise = "invalid_request_error" if status < 500 else "api_error"
    told = "billing_error" if kind == "insufficient_quota" else _ANTHROPIC_TYPES.get(status, otherwise)
    about = {"type": told, "message": error.message}
    return msgspec.json.encode({"type": "error", "error": about, "request_id": request_id})


def error_event(path: str, error: ServiceError, request_id: str) -> bytes:
    """Give the event that ends a stream which has failed; the empty line closes one that was cut."""
    name = b"event: error\n" if path.startswith(MESSAGES) else b""
    return b"\n\n%sdata: %s\n\n" % (name, error_body(path, error, request_id))


async def send_error(
    path: str, error: ServiceError, request_id: str, headers: list[tuple[bytes, bytes]], send: Send
) -> None:
    """Answer a request with an error."""
    body = error_body(path, error, request_id)
    sent = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), *headers]
    if path.startswith(MESSAGES):
        sent.append((b"request-id", request_id.encode()))
    sent += [(name.encode(), value.encode()) for name, value in error.headers.items()]
    await send({"type": "http.response.start", "status": error.http.status, "headers": sent})
    await send({"type": "http.response.body", "body": body})
