"""The errors of Gemini's API, which are those of all of Google's."""

import re

import msgspec
from msgspec import Struct

from dozen_chassis.errors import ServiceError
from dozen_inference.formats.refusals import CONTEXT_LENGTH, provider_error

_TOO_LONG = re.compile(
    r"input token count .*exceeds the maximum|exceeds the maximum number of tokens", re.IGNORECASE
)
_SECONDS = re.compile(r"(\d+)(?:\.\d+)?s")
# Where a 400 is about us: our key, or where and how we may use the API.
_OUR_STATUSES = ("FAILED_PRECONDITION",)
_OUR_REASONS = ("API_KEY_INVALID", "API_KEY_SERVICE_BLOCKED", "BILLING_DISABLED", "CONSUMER_INVALID")
# By what they are called in OpenAI's API, those that the caller has set.
_FIELDS = {
    "contents": "messages",
    "system_instruction": "messages",
    "tools": "tools",
    "tool_config": "tool_choice",
    "candidate_count": "n",
    "frequency_penalty": "frequency_penalty",
    "logprobs": "top_logprobs",
    "max_output_tokens": "max_completion_tokens",
    "presence_penalty": "presence_penalty",
    "response_json_schema": "response_format",
    "response_logprobs": "logprobs",
    "response_mime_type": "response_format",
    "response_schema": "response_format",
    "seed": "seed",
    "stop_sequences": "stop",
    "temperature": "temperature",
    "thinking_config": "reasoning_effort",
    "top_k": "top_k",
    "top_p": "top_p",
}


class _Violation(Struct):
    field: str = ""


class _Detail(Struct, rename="camel"):
    reason: str = ""
    retry_delay: str = ""
    field_violations: list[_Violation] = msgspec.field(default_factory=list)


class Problem(Struct):
    """What went wrong."""

    code: int = 500
    message: str = ""
    status: str = ""
    details: list[_Detail] = msgspec.field(default_factory=list)


class _Body(Struct):
    error: Problem


def read_error(status: int, body: bytes, retry_after: str) -> ServiceError:
    """Read an answer that is not a success."""
    try:
        read = msgspec.json.decode(body, type=_Body | list[_Body])
    except msgspec.MsgspecError:
        return translated(Problem(code=status), retry_after)
    problem = read.error if isinstance(read, _Body) else read[0].error if read else Problem()
    problem.code = status
    return translated(problem, retry_after)


def translated(problem: Problem, retry_after: str = "") -> ServiceError:
    """Give the error for what went wrong."""
    reasons = {detail.reason for detail in problem.details}
    for detail in problem.details:
        if not retry_after and (found := _SECONDS.fullmatch(detail.retry_delay)):
            retry_after = str(int(found[1]) + 1)
    return provider_error(
        problem.code,
        problem.message,
        param=_param(problem),
        code=CONTEXT_LENGTH if _TOO_LONG.search(problem.message) else None,
        retry_after=retry_after,
        ours=problem.status in _OUR_STATUSES or not reasons.isdisjoint(_OUR_REASONS),
    )


def _param(problem: Problem) -> str | None:
    for detail in problem.details:
        for violation in detail.field_violations:
            for name in re.split(r"[.\[]", violation.field):
                if found := _FIELDS.get(re.sub(r"([A-Z])", r"_\1", name).lower()):
                    return found
    return None
