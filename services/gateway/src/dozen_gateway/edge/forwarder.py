"""The way of any admitted request to its service, and of the answer back: bytes, as they arrive."""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from prometheus_client import Counter
from starlette.types import Message, Scope, Send
from yarl import URL

from dozen_chassis.telemetry import current_trace_headers
from dozen_gateway.edge.body import ClientBody
from dozen_gateway.edge.errors import error_event
from dozen_gateway.edge.headers import RawHeaders, for_client, for_service
from dozen_gateway.errors.edge import AnswerBroken, ClientLeft, ServiceUnavailable, ServiceUnreachable
from dozen_gateway.service.decisions import Passage

log = logging.getLogger(__name__)

FORWARDED = Counter(
    "dozen_gateway_forwarded_requests", "Requests forwarded to a service.", ["service", "outcome"]
)

CONNECT_SECONDS = 5.0
KEEP_ALIVE_SECONDS = 60.0  # less than our services keep a connection, so that none closes under a request

_TRACE = {b"traceparent", b"tracestate"}


@asynccontextmanager
async def open_session() -> AsyncIterator[aiohttp.ClientSession]:
    """Open the client that forwards: it changes nothing of what it carries and remembers no cookie."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
    ) as session:
        yield session


class Answer:
    """The answer to a client: knows how far it has got."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._headers: list[tuple[bytes, bytes]] = []
        self.started = False

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """Give the answer headers of the gateway's own."""
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if not self.started and self._headers:
            message["headers"] = [*message["headers"], *self._headers]
        self.started = True
        await self._send(message)


class Forwarder:
    """Forwards admitted requests."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def forward(
        self, scope: Scope, passage: Passage, body: ClientBody, content: bytes | None, answer: Answer
    ) -> None:
        """Forward a request until it is answered or its client has left.

        `content` is the body where it has been read; else it is passed on as it arrives.
        """
        working = asyncio.ensure_future(self._exchange(scope, passage, body, content, answer))
        leaving = asyncio.ensure_future(body.departure())
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
                return
            FORWARDED.labels(passage.service, "client_left").inc()
            if not answer.started:
                raise ClientLeft()
        finally:
            working.cancel()
            leaving.cancel()
            await asyncio.wait((working, leaving))

    async def _exchange(
        self, scope: Scope, passage: Passage, body: ClientBody, content: bytes | None, answer: Answer
    ) -> None:
        query = scope["query_string"].decode("latin-1")
        # The route has matched the path, so there is nothing in it to be quoted.
        url = URL(f"{passage.address}{scope['path']}{'?' if query else ''}{query}", encoded=True)
        try:
            response = await self._session.request(
                scope["method"],
                url,
                headers=_request_headers(scope["headers"], passage, streamed=content is None),
                data=body.chunks() if content is None else content or None,
                allow_redirects=False,
            )
        except aiohttp.ClientError as error:
            if body.failure is not None:
                raise body.failure from error
            FORWARDED.labels(passage.service, "unavailable").inc()
            log.warning("%s does not answer: %r", passage.service, error)
            if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
                raise ServiceUnreachable() from error
            raise ServiceUnavailable() from error
        async with response:
            headers = for_client([(name.lower(), value) for name, value in response.raw_headers])
            await answer.send({"type": "http.response.start", "status": response.status, "headers": headers})
            try:
                async for chunk in response.content.iter_any():
                    await answer.send(_part(chunk, more=True))
            except aiohttp.ClientError as error:
                FORWARDED.labels(passage.service, "broken").inc()
                log.warning("%s broke off its answer: %r", passage.service, error)
                if _is_plain_event_stream(response):
                    event = error_event(scope["path"], AnswerBroken(), scope["request_id"])
                    await answer.send(_part(event, more=True))
                return  # without an end, at which the server cuts the connection
        await answer.send(_part(b"", more=False))
        FORWARDED.labels(passage.service, "answered").inc()


def _part(chunk: bytes, *, more: bool) -> Message:
    return {"type": "http.response.body", "body": chunk, "more_body": more}


def _request_headers(headers: RawHeaders, passage: Passage, *, streamed: bool) -> list[tuple[str, str]]:
    known = dict(headers)
    passed = [
        (name.decode("latin-1"), value.decode("latin-1"))
        for name, value in for_service(headers, known.get(b"connection", b""))
        if name not in _TRACE
    ]
    if streamed and b"transfer-encoding" not in known and b"content-length" in known:
        passed.append(("content-length", known[b"content-length"].decode()))
    return [*passed, *passage.headers.items(), *current_trace_headers().items()]


def _is_plain_event_stream(response: aiohttp.ClientResponse) -> bool:
    return response.content_type == "text/event-stream" and "content-encoding" not in response.headers
