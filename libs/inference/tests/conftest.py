"""An inference server that does as it is told."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from dozen_chassis.admission import Admission
from dozen_inference.upstream import Upstream
from dozen_testing.http import serve


@dataclass
class ScriptedServer:
    """Answers each completion with the same chunks, and notes what it was asked and who left."""

    status: int = 200
    content_type: str = "text/event-stream"
    chunks: Sequence[bytes] = ()
    ending: str = "end"
    """Or `hang`, or `die` where the connection is cut."""
    allowed: asyncio.Semaphore | None = None
    """Given, each chunk waits for a permission."""
    pages: dict[str, bytes] = field(default_factory=dict)
    """What is at paths, by their names; at `/hangs` nothing comes."""
    asked: list[tuple[dict[str, str], Any]] = field(default_factory=list)
    """Headers and body of each request."""
    connections: set[tuple[str, int]] = field(default_factory=set)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a client leaves before the end."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            await self._give(scope["path"], send)
            return
        assert scope["path"] == "/v1/chat/completions"
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        assert headers["content-type"] == "application/json"
        body = b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        self.asked.append((headers, json.loads(body + message["body"])))
        self.connections.add(scope["client"])
        self.arrived.set()
        leaving = asyncio.ensure_future(self._leaving(receive))
        speaking = asyncio.ensure_future(self._speak(send))
        try:
            await asyncio.wait((leaving, speaking), return_when=asyncio.FIRST_COMPLETED)
            if speaking.done():
                speaking.result()
            else:
                self.left.set()
        finally:
            leaving.cancel()
            speaking.cancel()

    async def _give(self, path: str, send: Send) -> None:
        if path == "/hangs":
            await asyncio.Event().wait()
        status = self.status if path == "/health" else 200 if path in self.pages else 404
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": self.pages.get(path, b"")})

    async def _speak(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": self.status}
        for index, chunk in enumerate(self.chunks):
            if self.allowed is not None:
                await self.allowed.acquire()
            if index == 0:
                await send({**start, "headers": [(b"content-type", self.content_type.encode())]})
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        if self.ending == "hang":
            await asyncio.Event().wait()
        assert self.ending == "end", "cuts the connection"
        await send({"type": "http.response.body"})

    async def _leaving(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


@pytest.fixture
def server() -> ScriptedServer:
    return ScriptedServer()


@pytest.fixture
async def server_url(server: ScriptedServer) -> AsyncIterator[str]:
    async with serve(server) as url:
        yield url


@pytest.fixture
async def upstream(server_url: str) -> AsyncIterator[Upstream]:
    async with Upstream.open(server_url, connect_seconds=5, idle_seconds=5) as upstream:
        yield upstream


@pytest.fixture
def admission() -> Admission:
    """An admitted request."""
    facts = {"model": "small", "deployments": "small-1,small-2", "price": "price-1"}
    return Admission("acme", "key1", "req_1", "POST /v1/chat/completions", facts)
