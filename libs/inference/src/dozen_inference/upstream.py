"""The one client of inference servers that speak OpenAI's HTTP API."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import ClassVar

import aiohttp
import msgspec

from dozen_chassis.errors import ServiceError, Status

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""Of an answer that is read whole."""

# llama.cpp and vLLM close a connection after 5 idle seconds, perhaps just as it is used again; we do before.
_KEEP_ALIVE_SECONDS = 4
_HEADERS = {"content-type": "application/json", "accept-encoding": "identity"}

# To llama.cpp these are errors of its own.
_CALLERS_MISTAKES = ("Failed to parse messages", "Failed to parse tools")

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
    """An answer that has begun."""

    def __init__(self, response: aiohttp.ClientResponse, deadline: float, idle_seconds: float) -> None:
        self.status = response.status
        self.content_type = response.content_type
        self._content = response.content
        self._deadline = deadline
        self._idle_seconds = idle_seconds

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the bytes of the body as they arrive."""
        limit = asyncio.timeout_at(self._deadline)
        while True:
            with _upstream_errors():
                async with limit:
                    chunk = await self._content.readany()
            if not chunk:
                return
            yield chunk
            limit = asyncio.timeout(self._idle_seconds)

    async def read(self) -> bytes:
        """Give the body whole."""
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > MAX_ANSWER_BYTES:
                log.error("an answer of the inference server is larger than %d bytes", MAX_ANSWER_BYTES)
                raise UpstreamFailed()
        return bytes(body)


class Upstream:
    """An inference server, and the connections to it that are kept."""

    def __init__(self, url: str, session: aiohttp.ClientSession, idle_seconds: float) -> None:
        self._url = url.rstrip("/")
        self._session = session
        self._idle_seconds = idle_seconds

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, *, connect_seconds: float, idle_seconds: float
    ) -> AsyncIterator["Upstream"]:
        """Give a client for the block; `idle_seconds` is the longest pause within an answer."""
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as session:
            yield cls(url, session, idle_seconds)

    @asynccontextmanager
    async def post(
        self, path: str, body: bytes, headers: Mapping[str, str], *, first_byte_seconds: float
    ) -> AsyncIterator[UpstreamAnswer]:
        """Send a JSON body and give the answer once it has begun; raise where it is not a success.

        Leaving the block before the end of the answer closes the connection, which makes the server stop.
        """
        deadline = asyncio.get_running_loop().time() + first_byte_seconds
        with _upstream_errors():
            async with asyncio.timeout_at(deadline):
                response = await self._session.post(
                    self._url + path, data=body, headers={**_HEADERS, **headers}
                )
        try:
            answer = UpstreamAnswer(response, deadline, self._idle_seconds)
            if answer.status != 200:
                raise upstream_error(answer.status, await answer.read())
            yield answer
        finally:
            response.release()  # to the pool, or closed where the body has not ended

    async def ping(self) -> None:
        """Raise unless the server says that it is well."""
        with _upstream_errors():
            async with self._session.get(f"{self._url}/health") as response:
                if response.status != 200:
                    raise UpstreamNotReady(f"The inference server's /health answers {response.status}.")


class _Error(msgspec.Struct):
    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class _Refusal(_Error):
    error: _Error | str | None = None


def upstream_error(status: int, body: bytes) -> ServiceError:
    """Read the error of an inference server: OpenAI's object, or one of the forms that others have.

    In an answer that began with 200 the object's own `code` may be a status.
    """
    try:
        refusal = msgspec.json.decode(body, type=_Refusal)
    except msgspec.MsgspecError:
        refusal = _Refusal()
    error = _Error(refusal.error) if isinstance(refusal.error, str) else refusal.error or refusal
    if status == 200:
        status = error.code if isinstance(error.code, int) else 500
    if status == 500 and error.message.startswith(_CALLERS_MISTAKES):
        status = 400
    if status in (401, 403) or not 400 <= status < 500:  # the first two are between the server and us
        log.warning("the inference server failed with %d: %s", status, error.message[:500])
        return UpstreamNotReady() if status == 503 else UpstreamFailed()
    code = error.code if isinstance(error.code, str) else None
    if error.type == "exceed_context_size_error" or "maximum context length" in error.message:
        code = "context_length_exceeded"
    return UpstreamRefused(status, error.message or UpstreamRefused.__doc__ or "", error.param, code)


@contextmanager
def _upstream_errors() -> Iterator[None]:
    try:
        yield
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        raise UpstreamUnavailable() from error
    except TimeoutError as error:
        raise UpstreamTimeout() from error
    except aiohttp.ClientError as error:
        log.warning("the inference server failed: %r", error)
        raise UpstreamFailed() from error
