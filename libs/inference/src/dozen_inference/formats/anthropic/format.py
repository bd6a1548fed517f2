"""Anthropic's Messages API, as published at https://platform.claude.com/docs/en/api/messages."""

import time
from collections.abc import Callable

import msgspec

from dozen_chassis.errors import ServiceError
from dozen_inference.formats.anthropic.answer import completion
from dozen_inference.formats.anthropic.errors import read_error
from dozen_inference.formats.anthropic.request import messages_request
from dozen_inference.formats.anthropic.stream import AnthropicStream
from dozen_inference.formats.chat import read_chat
from dozen_inference.formats.wire import JSON_HEADERS, WireRequest
from dozen_inference.request import CompletionRequest

# The one that still has sampling parameters; models that refuse them say so.
VERSION = b"2023-06-01"

_PATH = "/v1/messages"


class AnthropicFormat:
    """Anthropic's Messages API."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now

    def request(self, request: CompletionRequest, path: str, model: str, key: str) -> WireRequest:
        """Translate a request."""
        body = messages_request(read_chat(request, path), model or request.model)
        headers = (*JSON_HEADERS, (b"anthropic-version", VERSION), (b"x-api-key", key.encode()))
        return WireRequest(_PATH, headers, msgspec.json.encode(body))

    def error(self, status: int, body: bytes, retry_after: str = "") -> ServiceError:
        """Read an error."""
        return read_error(status, body, retry_after)

    def whole(self, body: bytes) -> bytes:
        """Translate a whole answer."""
        return completion(body, self._now())

    def stream(self) -> AnthropicStream:
        """Begin to translate a streamed answer."""
        return AnthropicStream(self._now)
