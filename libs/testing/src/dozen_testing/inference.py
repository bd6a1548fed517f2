"""An inference server for tests, which says of each answer as much as its request tells it to."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from starlette.types import Receive, Scope, Send

from dozen_chassis.admission import Admission
from dozen_inference.request import CompletionRequest
from dozen_inference.upstream import Upstream, UpstreamAnswer
from dozen_inference.usage import Served, first_choice


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
    otherwise: dict[str, Any] = field(default_factory=dict)
    """What is wanted where a request does not tell, as it is told in `told`."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["method"] == "GET":  # it has no metrics
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body"})
            return
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
        wanted = body.get("told", self.otherwise)
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


class OpenedUpstream:
    """An answer of a single upstream."""

    def __init__(self, answer: UpstreamAnswer, served: Served) -> None:
        self.served = served
        self.content_type = answer.content_type
        self.chunks = answer.chunks
        self.read = answer.read


class OneUpstream:
    """Upstreams where there is one, for whatever deployment."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    @asynccontextmanager
    async def open(
        self,
        admission: Admission,
        request: CompletionRequest,
        path: str,
        headers: Mapping[str, str],
        *,
        seconds: float,
    ) -> AsyncIterator[OpenedUpstream]:
        """Ask it."""
        async with self._upstream.post(path, request.body, headers, first_byte_seconds=seconds) as answer:
            yield OpenedUpstream(answer, first_choice(admission))


@dataclass
class AnswersInMemory:
    """Answers of the cache; their age is no matter."""

    kept: dict[bytes, bytes] = field(default_factory=dict)
    lifetimes: list[timedelta] = field(default_factory=list)

    async def find(self, key: bytes) -> bytes | None:
        """Give an answer."""
        return self.kept.get(key)

    async def keep(self, key: bytes, answer: bytes, lifetime: timedelta) -> None:
        """Keep an answer."""
        self.kept[key] = answer
        self.lifetimes.append(lifetime)


@dataclass
class WordModerator:
    """Finds the words that it is told to find."""

    harmful: Mapping[str, str] = field(default_factory=dict)
    """Words, to the category that each is in."""
    asked: list[str] = field(default_factory=list)

    async def categories(self, texts: Sequence[str]) -> list[Sequence[str]]:
        """Give the categories of the words in each text."""
        self.asked += texts
        return [[self.harmful[word] for word in self.harmful if word in text] for text in texts]
