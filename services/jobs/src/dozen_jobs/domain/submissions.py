"""Submissions: what clients may ask for, and the rules of it."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any

import msgspec

IDEMPOTENCY = timedelta(hours=24)
"""How long an idempotency key stands for its job."""
MAX_PARAMETERS_BYTES = 4 * 1024 * 1024

_MAX_URL = 2048
_MAX_MODEL = 256
_MAX_COUNT = 2**31 - 1
_URL = re.compile(r"https?://[a-z0-9._~\[\]:%-]+([/?#][!-~]*)?", re.IGNORECASE)

TASK_TYPES: Mapping[str, tuple[str, str]] = {"chat.completions": ("POST", "/v1/chat/completions")}
"""Each type of task, and the method and path of the endpoint that does the same at once."""


class Priority(StrEnum):
    """Orders waiting jobs."""

    HIGH = "high"
    STANDARD = "standard"
    LOW = "low"


@dataclass(frozen=True, slots=True)
class Submission:
    """What a client asks for."""

    task_type: str
    parameters: bytes
    """JSON: the body that the endpoint of the task type takes."""
    priority: Priority = Priority.STANDARD
    callback_url: str | None = None
    max_retries: int = 3
    timeout_seconds: int = 120


@dataclass(frozen=True, slots=True)
class Facts:
    """What the gateway decides on."""

    method: str
    path: str
    body_bytes: int
    model: str
    max_tokens: int | None
    choices: int | None


@dataclass(frozen=True, slots=True)
class Fault:
    """A parameter that is not valid, and what it should be."""

    param: str
    should: str


def is_idempotency_key(text: str) -> bool:
    """Tell whether a text is fit for an idempotency key: 1 to 255 printable ASCII characters."""
    return 0 < len(text) <= 255 and text.isascii() and text.isprintable()


def read_parameters(text: bytes) -> dict[str, Any] | None:
    """Read a JSON object, strictly; None where it is none."""
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (ValueError, RecursionError):
        return None


def faults(submission: Submission, parameters: Mapping[str, Any]) -> Iterator[Fault]:
    """Give what is not valid in a submission of a known task type; `parameters` are its own, read."""
    url = submission.callback_url
    if len(submission.parameters) > MAX_PARAMETERS_BYTES:
        yield Fault("parameters", "must be at most 4 MiB")
    if url is not None and (len(url) > _MAX_URL or not _URL.fullmatch(url)):
        yield Fault("callback_url", f"must be an http or https URL of at most {_MAX_URL} characters")
    if not 0 <= submission.max_retries <= 10:
        yield Fault("max_retries", "must be between 0 and 10")
    if not 1 <= submission.timeout_seconds <= 3600:
        yield Fault("timeout_seconds", "must be between 1 and 3600")
    if parameters.get("stream") not in (None, False):
        yield Fault("parameters.stream", "must be absent or false, for nobody would read the stream")
    model = parameters.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= _MAX_MODEL:
        yield Fault("parameters.model", "must be the id of a model")
    for name in ("max_completion_tokens", "max_tokens", "n"):
        count = parameters.get(name)
        if count is not None and (type(count) is not int or not 1 <= count <= _MAX_COUNT):
            yield Fault(f"parameters.{name}", f"must be a whole number between 1 and {_MAX_COUNT}")


def facts(submission: Submission, parameters: Mapping[str, Any]) -> Facts:
    """Give what the gateway decides on, for a valid submission."""
    method, path = TASK_TYPES[submission.task_type]
    return Facts(
        method=method,
        path=path,
        body_bytes=len(submission.parameters),
        model=parameters["model"],
        max_tokens=parameters.get("max_completion_tokens") or parameters.get("max_tokens"),
        choices=parameters.get("n"),
    )


def fingerprint(submission: Submission, parameters: Mapping[str, Any]) -> bytes:
    """Give what equal submissions have in common, whatever the order of their fields."""
    fields = [
        submission.task_type,
        submission.priority,
        parameters,
        submission.callback_url,
        submission.max_retries,
        submission.timeout_seconds,
    ]
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).digest()
