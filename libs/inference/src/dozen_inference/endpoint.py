"""The ASGI endpoint of completions, raw because it is the hottest path."""

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import aclosing
from typing import Any

from dozen_chassis.admission import Admission
from dozen_inference.departure import ClientLeft, Receive, unless_client_leaves
from dozen_inference.generation import Answer

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class CompletionEndpoint:
    """Answers admitted requests on a path; what `begin` raises becomes the answer."""

    def __init__(self, path: str, begin: Callable[[Admission, bytes], Answer]) -> None:
        self._path = path
        self._begin = begin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        scope["route_name"] = self._path
        answer = self._begin(scope["admission"], await _read(receive))
        started = False

        async def respond() -> None:
            nonlocal started
            async with aclosing(answer.chunks) as chunks:
                chunk = await anext(chunks)  # an error that is raised here can still have its own status
                started = True
                length = (b"content-length", str(len(chunk)).encode())
                headers = (
                    _STREAM_HEADERS if answer.stream else [(b"content-type", b"application/json"), length]
                )
                await send({"type": "http.response.start", "status": 200, "headers": headers})
                await send({"type": "http.response.body", "body": chunk, "more_body": answer.stream})
                async for chunk in chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                if answer.stream:
                    await send({"type": "http.response.body"})

        try:
            await unless_client_leaves(receive, respond())
        except ClientLeft:
            if not started:
                raise


async def _read(receive: Receive) -> bytes:
    parts, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeft()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)
