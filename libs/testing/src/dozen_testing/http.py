"""HTTP for tests: an ASGI app on a real port, and an edge that admits requests as the gateway does."""

import socket
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from dozen_chassis.admission import Admission
from dozen_chassis.hot import HotProtocol
from dozen_chassis.http import new_request_id


@asynccontextmanager
async def serve(app: ASGIApp) -> AsyncIterator[str]:
    """Serve an ASGI app on a free port of the loopback address for the block; give its base URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as the chassis does
        config = uvicorn.Config(app, http=HotProtocol, lifespan="off", log_config=None, access_log=False)
        config.load()
        # The halves of its `serve`, without the signal handlers and the clock that a program needs.
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        await server.startup(sockets=[listener])
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.force_exit = True
            await server.shutdown(sockets=[listener])


@dataclass(frozen=True)
class Signer:
    """Signs admissions as the gateway does, for one receiving service."""

    key: bytes
    account: str = "acme"
    api_key: str = "key1"
    facts: Mapping[str, str] = field(default_factory=dict)
    """Further `x-dozen-*` headers, by their name without the prefix."""

    def headers(
        self, operation: str, *, request_id: str | None = None, expires_in: float = 60
    ) -> dict[str, str]:
        """Give the headers that admit a request such as `POST /v1/chat/completions`."""
        admission = Admission(
            self.account, self.api_key, request_id or new_request_id(), operation, self.facts
        )
        return admission.headers(self.key, int(time.time() + expires_in))


class Edge:
    """ASGI middleware in the gateway's place: it admits every request under `/v1/`."""

    def __init__(self, app: ASGIApp, signer: Signer) -> None:
        self._app = app
        self._signer = signer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["path"].startswith("/v1/"):
            signed = self._signer.headers(f"{scope['method']} {scope['path']}")
            headers = [(name, value) for name, value in scope["headers"] if name.decode() not in signed]
            headers += [(name.encode(), value.encode()) for name, value in signed.items()]
            scope = {**scope, "headers": headers}
        await self._app(scope, receive, send)
