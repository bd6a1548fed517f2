"""The ASGI endpoint of completions, raw because it is the hottest path."""

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from starlette.types import Receive, Scope, Send

from dozen_chassis.admission import Admission
from dozen_chassis.hot import read_body
from dozen_inference.generation import Answer
from dozen_inference.settlement import Settlements

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class CompletionEndpoint:
    """Hot path that answers admitted requests; what `begin` raises becomes the answer.

    `begin` is given the admission, the body and the client's headers. Every request that is priced is
    settled, whatever ends it.
    """

    def __init__(
        self, begin: Callable[[Admission, bytes, dict[bytes, bytes]], Answer], settlements: Settlements[Any]
    ) -> None:
        self._begin = begin
        self._settlements = settlements

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        admission: Admission = scope["admission"]
        async with self._settlements.follow(admission):
            answer = self._begin(admission, await read_body(scope, receive), dict(scope["headers"]))
            async with aclosing(answer.chunks) as chunks:
                chunk = await anext(chunks)  # an error that is raised here can still have its own status
                headers = (
                    _STREAM_HEADERS
                    if answer.stream
                    else [
                        (b"content-type", b"application/json"),
                        (b"content-length", b"%d" % len(chunk)),
                    ]
                )
                own = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
                await send({"type": "http.response.start", "status": 200, "headers": headers + own})
                await send({"type": "http.response.body", "body": chunk, "more_body": answer.stream})
                async for chunk in chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                if answer.stream:
                    await send({"type": "http.response.body"})
