"""The one client of inference servers that speak OpenAI's HTTP API."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import msgspec

from dozen_chassis.errors import ServiceError, Status
from dozen_inference.http1 import ConnectFailed, HttpClient, HttpError, Response, TimedOut

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Of an answer that is read whole."""

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""What reading JSON raises: besides its own errors, those of wrong UTF-8 and of endless brackets."""

_HEADERS = [(b"content-type", b"application/json"), (b"accept", b"*/*"), (b"accept-encoding", b"identity")]

# To llama.cpp these are errors of its own.
_CALLERS_MISTAKES = ("Failed to parse messages", "Failed to parse tools")

_MOST_TEXT = 2000
"""Characters of what a server says of an error."""

_STATUSES = {404: Status.NOT_FOUND, 409: Status.ABORTED, 429: Status.RESOURCE_EXHAUSTED}


class UpstreamUnavailable(ServiceError):
    """The inference server cannot be reached; try again later."""

    status = Status.UNAVAILABLE
    code = "upstream_unavailable"


class UpstreamTimeout(ServiceError):
    """The inference server took too long to answer."""

    status = Status.DEADLINE_EXCEEDED
    code = "upstream_timeout"


class UpstreamFailed(ServiceError):
    """The inference server failed at this request."""

    status = Status.UNAVAILABLE
    http_status = 502
    code = "upstream_error"


class UpstreamNotReady(UpstreamFailed):
    """The inference server does not take requests at the moment; try again later."""

    http_status = 503


class UpstreamRefused(ServiceError):
    """The inference server refused the request."""

    status = Status.INVALID_ARGUMENT
    code: ClassVar[str | None] = "upstream_refused"

    def __init__(self, http_status: int, message: str, param: str | None, code: str | None) -> None:
        super().__init__(message, param=param)
        self.status = _STATUSES.get(http_status, Status.INVALID_ARGUMENT)  # type: ignore[misc]  # of this one
        self.http_status = http_status  # type: ignore[misc]
        self.code = code  # type: ignore[misc]


class UpstreamAnswer:
    """An answer that has begun; `close` it, wherever it was left."""

    def __init__(self, response: Response, deadline: float, idle_seconds: float) -> None:
        self.status = response.status
        self.headers = dict(response.headers)
        """Names in lower case."""
        kind = self.headers.get(b"content-type", b"").partition(b";")[0]
        self.content_type = kind.strip().lower().decode("latin-1")
        self._response = response
        self._deadline = deadline
        self._idle_seconds = idle_seconds
        self._has_begun = False

    async def chunk(self, most_seconds: float | None = None) -> bytes:
        """Give what has come of the body, or wait as long as a pause may be; nothing at its end."""
        patience = self._idle_seconds if most_seconds is None else min(self._idle_seconds, most_seconds)
        if not self._has_begun:
            patience = self._deadline - asyncio.get_running_loop().time()
            self._has_begun = True
        try:
            return await self._response.read_chunk(patience)
        except HttpError as error:
            raise _upstream_failure(error) from error

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the bytes of the body as they arrive."""
        while chunk := await self.chunk():
            yield chunk

    async def read(self) -> bytes:
        """Give the body whole."""
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                log.error("an answer of the inference server is larger than %d bytes", MAX_ANSWER_BYTES)
                raise UpstreamFailed()
        return bytes(body)

    def close(self) -> None:
        """Give the connection back; where the answer is not at its end, close it, which stops the server."""
        self._response.close()


class Upstream:
    """An inference server."""

    def __init__(self, url: str, client: HttpClient, idle_seconds: float) -> None:
        """`idle_seconds` is the longest pause within an answer."""
        self._url = url.rstrip("/")
        self._client = client
        self._idle_seconds = idle_seconds

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, connect_seconds: float, idle_seconds: float
    ) -> AsyncIterator["Upstream"]:
        """Give a client with connections of its own for the block."""
        async with HttpClient(connect_seconds=connect_seconds) as client:
            yield cls(url, client, idle_seconds)

    async def send(
        self, path: str, body: bytes, headers: Sequence[tuple[bytes, bytes]], *, first_byte_seconds: float
    ) -> UpstreamAnswer:
        """Send a body and give the answer, success or not, once it has begun."""
        deadline = asyncio.get_running_loop().time() + first_byte_seconds
        try:
            response = await self._client.send(
                "POST", self._url + path, headers, body, first_byte_seconds=first_byte_seconds
            )
        except HttpError as error:
            raise _upstream_failure(error) from error
        return UpstreamAnswer(response, deadline, self._idle_seconds)

    @asynccontextmanager
    async def post(
        self, path: str, body: bytes, headers: Mapping[str, str], *, first_byte_seconds: float
    ) -> AsyncIterator[UpstreamAnswer]:
        """Send a JSON body and give the answer once it has begun; raise where it is not a success.

        Leaving the block before the end of the answer closes the connection, which makes the server stop.
        """
        answer = await self.send(
            path, body, [*_HEADERS, *raw_headers(headers)], first_byte_seconds=first_byte_seconds
        )
        try:
            if answer.status != 200:
                raise upstream_error(answer.status, await answer.read())
            yield answer
        finally:
            answer.close()

    async def get(self, path: str, *, seconds: float = 5.0) -> bytes:
        """Give what is at a path; raise where it is not a success."""
        deadline = asyncio.get_running_loop().time() + seconds
        try:
            response = await self._client.send("GET", self._url + path, [], b"", first_byte_seconds=seconds)
        except HttpError as error:
            raise _upstream_failure(error) from error
        answer = UpstreamAnswer(response, deadline, seconds)
        try:
            if answer.status != 200:
                raise UpstreamNotReady(f"The inference server's {path} answers {answer.status}.")
            return await answer.read()
        finally:
            answer.close()

    async def ping(self) -> None:
        """Raise unless the server says that it is well."""
        await self.get("/health")


def raw_headers(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """Give headers as they are sent."""
    return [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]


def upstream_error(status: int, body: bytes) -> ServiceError:
    """Read the error of an inference server: OpenAI's object, or one of the forms that others have.

    In an answer that began with 200 the object's own `code` may be a status.
    """
    error = _error_object(body)
    message, param = _text(error.get("message")), _text(error.get("param"))
    code = error.get("code")
    if status == 200:
        status = code if isinstance(code, int) else 500
    if status == 500 and message.startswith(_CALLERS_MISTAKES):
        status = 400
    if status in (401, 403) or not 400 <= status < 500:  # the first two are between the server and us
        log.warning("the inference server failed with %d: %s", status, message[:500])
        return UpstreamNotReady() if status == 503 else UpstreamFailed()
    if error.get("type") == "exceed_context_size_error" or "maximum context length" in message:
        code = "context_length_exceeded"
    return UpstreamRefused(
        status, message or UpstreamRefused.__doc__ or "", param or None, _text(code) or None
    )


def _error_object(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except UNREADABLE:
        return {}
    error = found.get("error", found) if isinstance(found, dict) else {}
    if isinstance(error, str):
        return {"message": error}
    return error if isinstance(error, dict) else {}


def _text(value: Any) -> str:
    return value[:_MOST_TEXT] if isinstance(value, str) else ""


def _upstream_failure(error: HttpError) -> ServiceError:
    if isinstance(error, ConnectFailed):
        return UpstreamUnavailable()
    if isinstance(error, TimedOut):
        return UpstreamTimeout()
    log.warning("the inference server failed: %r", error)
    return UpstreamFailed()
