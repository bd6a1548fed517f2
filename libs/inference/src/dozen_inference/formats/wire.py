"""What a format does: requests to its wire form, and answers, streams and errors back."""

from typing import NamedTuple, Protocol

from dozen_chassis.errors import ServiceError
from dozen_inference.request import CompletionRequest

Headers = tuple[tuple[bytes, bytes], ...]

JSON_HEADERS: Headers = ((b"content-type", b"application/json"), (b"accept-encoding", b"identity"))


class WireRequest(NamedTuple):
    """A request as it is sent with POST."""

    path: str
    """To be put behind the base URL of the upstream; with the query."""
    headers: Headers
    """All that the format needs; the request's id and trace may be added."""
    body: bytes


class StreamTranslator(Protocol):
    """Translates one streamed answer."""

    def feed(self, chunk: bytes) -> bytes:
        """Give the events of OpenAI's stream that a chunk completes; the last one of all is `[DONE]`.

        Raises the provider's error where it tells of one.
        """
        ...

    def end(self) -> bytes:
        """Give what is still to be given once the upstream has ended the stream; raise if it ended early."""
        ...


class Format(Protocol):
    """A format, which has no state."""

    def request(self, request: CompletionRequest, path: str, model: str, key: str) -> WireRequest:
        """Translate a request for one of OpenAI's paths; raise where the format cannot say it.

        `model` is what the upstream calls the model, empty where that is what the client called it;
        `key` is the provider's key, empty where it needs none.
        """
        ...

    def error(self, status: int, body: bytes, retry_after: str = "") -> ServiceError:
        """Read an answer that is not a success; `retry_after` is that header of it."""
        ...

    def whole(self, body: bytes) -> bytes:
        """Translate a whole answer; raise where it is none."""
        ...

    def stream(self) -> StreamTranslator:
        """Begin to translate a streamed answer."""
        ...
