"""An inference server for tests, which says of each answer as much as its request tells it to."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send


def told(events: int, ending: str = "end") -> dict[str, Any]:
    """Give the field of a request that wants so many events of the answer.

    The `ending` is `end`, `hang`, or `die` where the connection is cut. A whole answer is one event.
    """
    return {"told": {"events": events, "ending": ending}}


@dataclass
class ToldUpstream:
    """Answers `POST` on a path; takes nothing but what a service sends, and no request twice."""

    path: str
    events: Sequence[bytes]
    whole: bytes
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What was asked, by the id of the request."""
    said: dict[str, int] = field(default_factory=dict)
    """How many events each request was given."""
    left: set[str] = field(default_factory=set)
    """Requests whose client left before the end."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        assert (scope["method"], scope["path"]) == ("POST", self.path)
        assert headers["content-type"] == "application/json"
        request_id = headers["x-request-id"]
        assert request_id not in self.bodies, f"{request_id} comes again"
        content, more = b"", True
        while more:
            message = await receive()
            content, more = content + message["body"], message["more_body"]
        body = json.loads(content)
        assert body.get("stream_options", {}).get("include_usage", False) == body.get("stream", False)
        self.said[request_id] = 0
        self.bodies[request_id] = body
        leaving = asyncio.ensure_future(_departure(receive))
        speaking = asyncio.ensure_future(self._speak(request_id, body, send))
        try:
            await asyncio.wait((leaving, speaking), return_when=asyncio.FIRST_COMPLETED)
            if speaking.done():
                speaking.result()
            else:
                self.left.add(request_id)
        finally:
            leaving.cancel()
            speaking.cancel()

    async def _speak(self, request_id: str, body: dict[str, Any], send: Send) -> None:
        stream = bool(body.get("stream"))
        kind = b"text/event-stream" if stream else b"application/json"
        start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]}
        wanted = body.get("told", {})
        events = (self.events if stream else [self.whole])[: wanted.get("events")]
        for index, event in enumerate(events):
            if index == 0:
                await send(start)
            await send({"type": "http.response.body", "body": event, "more_body": True})
            self.said[request_id] += 1
        ending = wanted.get("ending", "end")
        if ending == "hang":
            await asyncio.Event().wait()
        if ending == "die":
            raise ConnectionAbortedError(f"{request_id} was told to die")
        await send({"type": "http.response.body"})


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
