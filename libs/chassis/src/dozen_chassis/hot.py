"""The few paths that are asked so often that they cannot afford the layers of all others."""

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from functools import cache
from typing import Any, cast

from opentelemetry.trace import SpanKind
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from dozen_chassis import admission
from dozen_chassis.errors import BodyTooLarge
from dozen_chassis.http import (
    DEFAULT_BODY_BYTES,
    LATENCY,
    REQUESTS,
    body_limit,
    is_request_id,
    new_request_id,
    send_error,
)
from dozen_chassis.logging import RequestLog, request_id
from dozen_chassis.postgres import as_service_error
from dozen_chassis.telemetry import trace_context, tracer


class _Cork:
    """A transport that keeps the head of an answer until its first bytes follow: each write costs a call."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/"):
            self._head = data
            asyncio.get_running_loop().call_soon(self.flush)
            return
        self._transport.write(data)

    def flush(self) -> None:
        if self._head:
            self.write(b"")

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class HotProtocol(HttpToolsProtocol):
    """uvicorn's protocol, which cancels a hot request when its client leaves; no task has to watch."""

    running: asyncio.Task[object] | None = None
    """Answers a hot request."""
    has_left = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Write to the transport through a cork."""
        super().connection_made(transport)
        self.transport = cast(asyncio.Transport, _Cork(transport))

    def on_message_begin(self) -> None:
        """Show the request its connection."""
        super().on_message_begin()
        self.scope["connection"] = self  # type: ignore[typeddict-unknown-key]

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop what nobody waits for any more."""
        super().connection_lost(exc)
        self.has_left = True
        if self.running is not None:
            self.running.cancel()


async def read_body(scope: Scope, receive: Receive) -> bytes:
    """Read the body of a hot request; raise `BodyTooLarge` beyond the limit of its path."""
    parts: list[bytes] = []
    size, declared, limit, more = 0, 0, scope["body_limit"], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect()
        if (more := message["more_body"]) and not parts:
            declared = int(dict(scope["headers"]).get(b"content-length", 0))
        parts.append(message["body"])
        size += len(parts[-1])
        if max(size, declared) > limit:
            raise BodyTooLarge(f"The request body is larger than {limit} bytes.")
    return b"".join(parts)


class _HotPath:
    """What a path needs at hand; its metrics are looked up once."""

    def __init__(self, app: ASGIApp, path: str, limit: int) -> None:
        self.app = app
        self.path = path
        self.is_public = path.startswith("/v1/")
        self.operation = f"POST {path}"
        self.body_limit = limit
        self.latency = LATENCY.labels("POST", path)
        self.answered = cache(lambda status: REQUESTS.labels("POST", path, status))


class HotPaths:
    """ASGI app that serves raw apps at exact paths itself, and leaves all else to another app.

    A raw app answers POST. It finds in the scope what `RequestContext` would have put there: the request's
    id and, under `/v1/` where there is an `admission_key`, the verified admission. It reads the body with
    `read_body`, and raises errors. When the client leaves before the answer is complete, its task is
    cancelled. Its requests are counted, under `/v1/` also logged and, where `is_traced`, have a span.
    """

    def __init__(
        self,
        app: ASGIApp,
        paths: Mapping[str, ASGIApp],
        *,
        admission_key: bytes | None = None,
        max_body_bytes: int = DEFAULT_BODY_BYTES,
        body_limits: Sequence[tuple[str, int]] = (),
        takes_request_ids: bool = True,
        is_traced: bool = False,
        log: RequestLog | None = None,
    ) -> None:
        self._app = app
        self._paths = {
            path: _HotPath(hot, path, body_limit(path, body_limits, max_body_bytes))
            for path, hot in paths.items()
        }
        self._admission_key = admission_key
        self._takes_request_ids = takes_request_ids
        self._is_traced = is_traced
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        connection = scope.pop("connection", None)  # which has the scope, and would live as long as it
        hot = self._paths.get(scope.get("path", ""))
        if hot is None or scope.get("method") != "POST":
            await self._app(scope, receive, send)
        elif self._is_traced:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            with tracer.start_as_current_span(hot.operation, trace_context(headers), SpanKind.SERVER) as span:
                span.set_attribute(
                    "http.status_code", await self._serve(hot, connection, scope, receive, send)
                )
        else:
            await self._serve(hot, connection, scope, receive, send)

    async def _serve(
        self, hot: _HotPath, connection: HotProtocol, scope: Scope, receive: Receive, send: Send
    ) -> int:
        started, status = time.perf_counter(), 0
        signed = admission.signed_headers(scope["headers"]) if self._takes_request_ids else {}
        identifier = signed.get(admission.REQUEST_ID_HEADER, "")
        if not is_request_id(identifier):
            identifier = new_request_id()
        scope["request_id"], scope["body_limit"] = identifier, hot.body_limit
        token = request_id.set(identifier)

        def answer(message: Message) -> Awaitable[None]:
            nonlocal status
            if not status:
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", identifier.encode())]
            elif not message.get("more_body", False):
                connection.running = None  # what follows the answer is not for the client
            return send(message)

        connection.running = task = asyncio.current_task()
        try:
            if (key := self._admission_key) is not None and hot.is_public:
                scope["admission"] = admission.verify_signed(signed, hot.operation, key, time.time())
            await hot.app(scope, receive, answer)
        except asyncio.CancelledError:
            if task is None or connection.running is None or not connection.has_left:
                raise
            task.uncancel()
            status = 499
        except ClientDisconnect:
            status = 499
        except Exception as problem:
            error = as_service_error(problem)
            if not status:  # otherwise the response has begun, and the server cuts it
                await send_error(error, scope, receive, answer)
        finally:
            connection.running = None
            hot.answered(status).inc()
            hot.latency.observe(seconds := time.perf_counter() - started)
            if self._log is not None and hot.is_public:
                self._log.put(identifier, hot.path, status, seconds, is_traced=self._is_traced)
            request_id.reset(token)
        return status
