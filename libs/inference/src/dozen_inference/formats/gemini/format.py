"""Google's Gemini API, as published at https://ai.google.dev/api/generate-content."""

import time
from collections.abc import Callable
from urllib.parse import quote

import msgspec

from dozen_chassis.errors import ServiceError
from dozen_inference.formats.chat import read_chat
from dozen_inference.formats.gemini.answer import completion
from dozen_inference.formats.gemini.errors import read_error
from dozen_inference.formats.gemini.request import generate_request
from dozen_inference.formats.gemini.stream import GeminiStream
from dozen_inference.formats.wire import JSON_HEADERS, WireRequest
from dozen_inference.request import CompletionRequest


class GeminiFormat:
    """Google's Gemini API."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now

    def request(self, request: CompletionRequest, path: str, model: str, key: str) -> WireRequest:
        """Translate a request."""
        name = model or request.model
        body = generate_request(read_chat(request, path), name)
        resource = quote(name if "/" in name else f"models/{name}")
        method = "streamGenerateContent?alt=sse" if request.stream else "generateContent"
        headers = (*JSON_HEADERS, (b"x-goog-api-key", key.encode()))
        return WireRequest(f"/v1/{resource}:{method}", headers, msgspec.json.encode(body))

    def error(self, status: int, body: bytes, retry_after: str = "") -> ServiceError:
        """Read an error."""
        return read_error(status, body, retry_after)

    def whole(self, body: bytes) -> bytes:
        """Translate a whole answer."""
        return completion(body, self._now())

    def stream(self) -> GeminiStream:
        """Begin to translate a streamed answer."""
        return GeminiStream(self._now)
