"""A small HTTP/1.1 client for the data path (RFC 9112): connections are kept, bytes pass as they arrive.

What no upstream here needs is left out: redirects, cookies, compression, proxies, bodies sent in chunks.
"""

import asyncio
import ssl
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from dozen_inference.connection import BadAnswer as BadAnswer
from dozen_inference.connection import Connection, ConnectionLost
from dozen_inference.connection import HttpError as HttpError
from dozen_inference.connection import TimedOut as TimedOut

# llama.cpp and vLLM close a connection after 5 idle seconds, perhaps just as it is used again; we do before.
KEEP_ALIVE_SECONDS = 4.0
_TICK_SECONDS = 0.02
"""How late a time limit may be noticed."""


class ConnectFailed(HttpError):
    """No connection could be made."""


class _Origin(NamedTuple):
    host: str
    port: int
    is_tls: bool


class _Target(NamedTuple):
    origin: _Origin
    path: bytes
    """With the query."""
    authority: bytes


class Response:
    """A response that has begun; `close` it, wherever it was left."""

    def __init__(self, client: "HttpClient", origin: _Origin, connection: Connection) -> None:
        self.status = connection.status
        self.headers = connection.headers
        """Names in lower case."""
        self._client = client
        self._origin = origin
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._is_closed = False

    async def read_chunk(self, idle_seconds: float) -> bytes:
        """Give what has come of the body, or wait for so long; nothing at its end."""
        if self._is_closed:
            raise ConnectionLost("closed here")
        return await self._connection.chunk(self._loop.time() + idle_seconds)

    def close(self) -> None:
        """Give the connection back where the response is at its end; else close it: the server stops."""
        if not self._is_closed:
            self._is_closed = True  # by now the connection may be another one's
            self._client.release(self._origin, self._connection)


class HttpClient:
    """Sends requests over connections that it keeps until it is closed, or to the end of a block."""

    def __init__(self, *, connect_seconds: float, keep_alive_seconds: float = KEEP_ALIVE_SECONDS) -> None:
        """`keep_alive_seconds` must be less than the servers keep an idle connection."""
        self._connect_seconds = connect_seconds
        self._keep_alive_seconds = keep_alive_seconds
        self._idle: dict[_Origin, list[Connection]] = {}
        self._busy: set[Connection] = set()
        self._tls: ssl.SSLContext | None = None
        self._ticking: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        if self._ticking is not None:
            self._ticking.cancel()
        for connection in [*self._busy, *(one for kept in self._idle.values() for one in kept)]:
            connection.abort()
        self._idle.clear()
        self._busy.clear()

    async def send(
        self,
        method: str,
        url: str,
        headers: Sequence[tuple[bytes, bytes]],
        body: bytes,
        *,
        first_byte_seconds: float,
    ) -> Response:
        """Send a request and give its response once the headers have come.

        A server may close a kept connection just as it is used again. Then, where nothing of a response has
        come, a request that changes nothing (GET) is sent once more over a new connection; of any other
        nobody can tell whether the server has begun with it (RFC 9110, 9.2.2).
        """
        target = _target(url)
        data = _head(method, target, headers, len(body)) + body
        deadline = asyncio.get_running_loop().time() + first_byte_seconds
        connection = self._take(target.origin)
        while True:
            is_kept = connection is not None
            if connection is None:
                connection = await self._connect(target.origin, deadline)
            self._busy.add(connection)
            if self._ticking is None:
                self._ticking = asyncio.get_running_loop().call_later(_TICK_SECONDS, self._tick)
            try:
                connection.send(data)
                await connection.head(deadline)
            except ConnectionLost:
                self.release(target.origin, connection)
                if connection.has_begun or not is_kept or method != "GET":
                    raise
                connection = None
            except BaseException:
                self.release(target.origin, connection)
                raise
            else:
                return Response(self, target.origin, connection)

    def release(self, origin: _Origin, connection: Connection) -> None:
        """Keep a connection that can be used again, and close any other."""
        if connection not in self._busy:  # the client is closed
            return
        self._busy.discard(connection)
        if not connection.is_reusable:
            connection.abort()
            return
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.setdefault(origin, []).append(connection)

    def _take(self, origin: _Origin) -> Connection | None:
        kept = self._idle.get(origin)
        oldest = asyncio.get_running_loop().time() - self._keep_alive_seconds
        while kept:
            connection = kept.pop()  # the one that was used last is the least likely to have been closed
            if not connection.is_closed and connection.idle_since > oldest:
                return connection
            connection.abort()
        return None

    async def _connect(self, origin: _Origin, deadline: float) -> Connection:
        loop = asyncio.get_running_loop()
        if origin.is_tls and self._tls is None:
            self._tls = ssl.create_default_context()
        try:
            async with asyncio.timeout_at(min(deadline, loop.time() + self._connect_seconds)):
                _, connection = await loop.create_connection(
                    Connection, origin.host, origin.port, ssl=self._tls if origin.is_tls else None
                )
        except (OSError, TimeoutError) as error:  # the second one is of the first kind too, but says less
            raise ConnectFailed(f"{origin.host}:{origin.port}: {error or 'timed out'}") from error
        return connection

    def _tick(self) -> None:
        """End what waits for too long, and connections that nobody has used for a while."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in self._busy:
            connection.check(now)
        for origin, kept in list(self._idle.items()):
            # The one that was used last is the last, and the first to be used again.
            while kept and (kept[0].is_closed or kept[0].idle_since <= now - self._keep_alive_seconds):
                kept.pop(0).abort()
            if not kept:
                del self._idle[origin]
        more = self._busy or self._idle
        self._ticking = loop.call_later(_TICK_SECONDS, self._tick) if more else None


def _target(url: str) -> _Target:
    """Read a URL; all but its query, which is the client's, is remembered."""
    base, mark, query = url.partition("?")
    target = _base_target(base)
    return target._replace(path=target.path + f"?{query}".encode("ascii")) if mark else target


@lru_cache(4096)
def _base_target(url: str) -> _Target:
    parts = urlsplit(url)
    if parts.hostname is None or parts.scheme not in ("http", "https"):
        raise ValueError(f"{url!r} is not an HTTP URL.")
    is_tls = parts.scheme == "https"
    return _Target(
        _Origin(parts.hostname, parts.port or (443 if is_tls else 80), is_tls),
        (parts.path or "/").encode("ascii"),
        parts.netloc.rpartition("@")[2].encode("ascii"),
    )


def _head(method: str, target: _Target, headers: Sequence[tuple[bytes, bytes]], size: int) -> bytes:
    lines = [b"%s %s HTTP/1.1\r\nhost: %s" % (method.encode("ascii"), target.path, target.authority)]
    lines += [b"%s: %s" % header for header in headers]
    if size or method != "GET":
        lines.append(b"content-length: %d" % size)
    lines.append(b"\r\n")
    head = b"\r\n".join(lines)
    ends = len(lines) + 1
    if head.count(b"\r") != ends or head.count(b"\n") != ends:
        raise ValueError("A header holds the end of a line.")
    return head
