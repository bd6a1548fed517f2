"""One connection of the HTTP/1.1 client: a request at a time, and its response as it arrives."""

import asyncio

import httptools

MAX_HEADER_BYTES = 64 * 1024
_MOST_UNREAD_BYTES = 256 * 1024
"""Beyond it the server has to wait until somebody reads."""

RawHeaders = list[tuple[bytes, bytes]]


class HttpError(Exception):
    """A request that was not answered, or not to the end."""


class TimedOut(HttpError):
    """The server took too long."""


class ConnectionLost(HttpError):
    """The server closed the connection before the end of its response."""


class BadAnswer(HttpError):
    """What the server sent is not an HTTP response."""


class Connection(asyncio.Protocol):
    """One connection; a single task may use it at a time."""

    def __init__(self) -> None:
        self.is_closed = False
        self.idle_since = 0.0
        self.status = 0
        self.headers: RawHeaders = []
        self.has_begun = False
        """Whether anything of the response has come."""
        self.is_complete = True
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._error: HttpError | None = None
        self._has_head = False
        self._is_framed = False
        self._is_kept = False
        self._headless_bytes = 0
        self._chunks: list[bytes] = []
        self._unread = 0
        self._is_paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._deadline = 0.0

    @property
    def is_reusable(self) -> bool:
        """Tell whether another request may be sent, now that the response is complete."""
        if not self.is_complete or not self._is_kept or self.is_closed or self._unread:
            return False
        # A server may answer before it has read the request; who knows whether it ever reads the rest.
        return self._transport is not None and not self._transport.get_write_buffer_size()

    def send(self, data: bytes) -> None:
        """Send a request, head and body."""
        self.status, self.headers, self._headless_bytes = 0, [], 0
        self.has_begun = self.is_complete = self._has_head = self._is_framed = self._is_kept = False
        self._parser = httptools.HttpResponseParser(self)
        if self._transport is None or self.is_closed:
            raise ConnectionLost("closed")
        self._transport.write(data)

    async def head(self, deadline: float) -> None:
        """Wait for the status and headers, until a time of the loop's clock."""
        while not self._has_head:
            await self._wait(deadline)

    async def chunk(self, deadline: float) -> bytes:
        """Give what has come of the body, or wait for it; nothing at its end."""
        while not self._chunks:
            if self.is_complete:
                return b""
            await self._wait(deadline)
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks, self._unread = [], 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            if not self.is_closed:
                self._transport.resume_reading()
        return data

    def abort(self) -> None:
        """Close the connection at once."""
        self.is_closed = True
        if self._transport is not None:
            self._transport.abort()

    async def _wait(self, deadline: float) -> None:
        if self._error is not None:
            raise self._error
        self._waiter, self._deadline = self._loop.create_future(), deadline
        try:
            await self._waiter
        finally:
            self._waiter = None

    def check(self, now: float) -> None:
        """Give up waiting where that has been too long; a timer for each wait would cost more than it."""
        waiter = self._waiter
        if waiter is not None and now >= self._deadline and not waiter.done():
            waiter.set_exception(TimedOut())

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: HttpError) -> None:
        if self._error is None:
            self._error = error
        self.abort()
        self._wake()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection."""
        self._transport = transport  # type: ignore[assignment]  # of a stream

    def data_received(self, data: bytes) -> None:
        """Take what the server sent."""
        if self._parser is None or self.is_complete:
            self.abort()  # nobody has asked for it
            return
        self.has_begun = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(BadAnswer(str(error)))
        if not self._has_head:
            self._headless_bytes += len(data)
            if self._headless_bytes > MAX_HEADER_BYTES:
                self._fail(BadAnswer("headers without an end"))
        if self._unread > _MOST_UNREAD_BYTES and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end of the connection."""
        self.is_closed = True
        if not self.is_complete and self._error is None:
            if self._has_head and not self._is_framed and exc is None:  # the only end that this body has
                self.is_complete = True
            else:
                self._error = ConnectionLost(str(exc or "closed by the server"))
        self._wake()

    # What the parser calls.

    def on_message_begin(self) -> None:
        """Take no second response."""
        if self.is_complete:
            raise httptools.HttpParserError("a response that nobody has asked for")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; what is said after the body is of no use here."""
        if self._has_head:
            return
        name = name.lower()
        if name in (b"content-length", b"transfer-encoding"):
            self._is_framed = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Take the head; one that only promises another (1xx) is forgotten."""
        assert self._parser is not None
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            self.headers, self._is_framed = [], False
            return
        self.status, self._has_head = status, True
        self._is_framed = self._is_framed or status in (204, 304)
        self._is_kept = self._is_framed and self._parser.should_keep_alive()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._chunks.append(body)
        self._unread += len(body)

    def on_message_complete(self) -> None:
        """Note the end of the response."""
        if self._has_head:
            self.is_complete = True
