"""OpenAI's own format: all passes as it is, but for what the model is called."""

import msgspec

from dozen_chassis.errors import ServiceError
from dozen_inference.formats.refusals import with_retry_after
from dozen_inference.formats.wire import JSON_HEADERS, WireRequest
from dozen_inference.request import CompletionRequest
from dozen_inference.upstream import upstream_error


class OpenAiStream:
    """Passes a stream through."""

    def feed(self, chunk: bytes) -> bytes:
        """Give the chunk."""
        return chunk

    def end(self) -> bytes:
        """Give nothing: whether the stream was complete is seen by who reads it."""
        return b""


class OpenAiFormat:
    """OpenAI's API, and all that speak it."""

    def request(self, request: CompletionRequest, path: str, model: str, key: str) -> WireRequest:
        """Replace the model's name where the upstream has another one; the rest stays byte for byte."""
        body = request.body
        if model and model != request.model:
            fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
            body = msgspec.json.encode({**fields, "model": model})
        headers = (*JSON_HEADERS, (b"authorization", b"Bearer " + key.encode())) if key else JSON_HEADERS
        return WireRequest(path, headers, body)

    def error(self, status: int, body: bytes, retry_after: str = "") -> ServiceError:
        """Read an error."""
        return with_retry_after(upstream_error(status, body), retry_after)

    def whole(self, body: bytes) -> bytes:
        """Give the body."""
        return body

    def stream(self) -> OpenAiStream:
        """Begin to pass a stream through."""
        return OpenAiStream()
