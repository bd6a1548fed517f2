"""Errors, in the words of Anthropic's Messages API."""

from typing import Any

from dozen_chat.domain.message_object import ChatError

_BY_STATUS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
_BY_CODE = {"upstream_timeout": 504, "upstream_unavailable": 503, "upstream_overloaded": 503}
_BY_TYPE = {"invalid_request_error": 400, "rate_limit_error": 429, "insufficient_quota": 429}
_OUT_OF_CREDITS = "insufficient_quota"


def error_fields(message: str, kind: str, status: int, request_id: str) -> dict[str, Any]:
    """Give the body of an error; `kind` is what OpenAI's API calls its type."""
    told = _BY_STATUS.get(status, "invalid_request_error" if status < 500 else "api_error")
    if kind == _OUT_OF_CREDITS:
        told = "billing_error"
    return {"error": {"type": told, "message": message}, "request_id": request_id}


def streamed_error_fields(error: ChatError, request_id: str) -> dict[str, Any]:
    """Give the body of an error that ended a stream of a chat completion."""
    status = _BY_CODE.get(error.code or "") or _BY_TYPE.get(error.type or "", 500)
    return error_fields(error.message, error.type or "", status, request_id)
