"""How an imitation answers: as it is told, and over HTTP."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send


class Refused(Exception):
    """An answer that is not a success."""

    def __init__(self, status: int, kind: str, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.headers: Mapping[str, str] = details.pop("headers", {})
        self.details = details


@dataclass
class Script:
    """What an imitation does beyond answering; set between requests."""

    refusal: Refused | None = None
    """Given instead of any answer."""
    fails_after: int | None = None
    """Events after which a stream tells of an error."""
    cuts_after: int | None = None
    """Events after which the connection is cut."""
    split: int | None = None
    """Bytes in a chunk of a stream; whole events otherwise."""
    permits: asyncio.Semaphore | None = None
    """Given, each event waits for a permit."""
    bodies: list[Any] = field(default_factory=list)
    """What was asked, and not refused."""
    headers: list[dict[str, str]] = field(default_factory=list)
    """The headers of those."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client leaves before the end of a stream."""


async def read_json(receive: Receive) -> Any:
    """Read the body of a request."""
    content, more = b"", True
    while more:
        message = await receive()
        content, more = content + message["body"], message.get("more_body", False)
    return json.loads(content)


def headers_of(scope: Scope) -> dict[str, str]:
    """Give the headers of a request."""
    return {name.decode(): value.decode() for name, value in scope["headers"]}


async def send_json(send: Send, status: int, body: Any, headers: Mapping[str, str]) -> None:
    """Answer whole."""
    sent = [(b"content-type", b"application/json")]
    sent += [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": json.dumps(body, ensure_ascii=False).encode()})


async def send_events(
    receive: Receive, send: Send, script: Script, events: Sequence[bytes], problem: bytes
) -> None:
    """Answer with a stream, until the client leaves."""
    leaving = asyncio.ensure_future(_departure(receive))
    speaking = asyncio.ensure_future(_speak(send, script, events, problem))
    try:
        await asyncio.wait((leaving, speaking), return_when=asyncio.FIRST_COMPLETED)
        if speaking.done():
            speaking.result()
        else:
            script.left.set()
    finally:
        leaving.cancel()
        speaking.cancel()


async def _speak(send: Send, script: Script, events: Sequence[bytes], problem: bytes) -> None:
    kind = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": kind})
    for index, event in enumerate(events):
        if script.permits is not None:
            await script.permits.acquire()
        if index == script.fails_after:
            await send({"type": "http.response.body", "body": problem, "more_body": True})
            break
        if index == script.cuts_after:
            raise ConnectionAbortedError("the imitation was told to cut")
        size = script.split or len(event)
        for start in range(0, len(event), size):
            await send({"type": "http.response.body", "body": event[start : start + size], "more_body": True})
            await asyncio.sleep(0)
    await send({"type": "http.response.body"})


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
