"""The errors of Anthropic's API."""

import re

import msgspec
from msgspec import Struct

from dozen_chassis.errors import ServiceError
from dozen_inference.formats.refusals import CONTEXT_LENGTH, provider_error

# In a stream an error comes without a status.
_STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
_TOO_LONG = re.compile(r"prompt is too long|exceeds? (the )?context (limit|window)", re.IGNORECASE)
_OURS = re.compile(r"credit balance is too low|API usage limits|spend limit", re.IGNORECASE)
_FIELD = re.compile(r"`?([a-z_]+)`?(?:[.:]| is deprecated)")
# By what they are called in OpenAI's API, those that the caller has set.
_FIELDS = {
    "max_tokens": "max_tokens",
    "messages": "messages",
    "system": "messages",
    "output_config": "response_format",
    "stop_sequences": "stop",
    "temperature": "temperature",
    "thinking": "reasoning_effort",
    "tool_choice": "tool_choice",
    "tools": "tools",
    "top_k": "top_k",
    "top_p": "top_p",
}


class Problem(Struct):
    """What went wrong."""

    type: str = ""
    message: str = ""


class _Body(Struct):
    error: Problem


def read_error(status: int | None, body: bytes, retry_after: str = "") -> ServiceError:
    """Read an answer that is not a success, or that says so in spite of its status."""
    try:
        problem = msgspec.json.decode(body, type=_Body).error
    except msgspec.MsgspecError:
        problem = Problem()
    return translated(problem, status, retry_after)


def translated(problem: Problem, status: int | None = None, retry_after: str = "") -> ServiceError:
    """Give the error for what went wrong."""
    message = problem.message
    found = _FIELD.match(message)
    return provider_error(
        status or _STATUSES.get(problem.type, 500),
        message,
        param=_FIELDS.get(found[1]) if found else None,
        code=CONTEXT_LENGTH if _TOO_LONG.search(message) else None,
        retry_after=retry_after,
        ours=bool(_OURS.search(message)),
    )
