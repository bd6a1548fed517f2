"""Liveness, readiness and metrics of a service."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from dozen_chassis.telemetry import render_metrics

Ping = Callable[[], Awaitable[object]]

PING_SECONDS = 2.0


@dataclass
class Health:
    """The dependencies of a service and whether it takes traffic."""

    service: str
    pings: dict[str, Ping] = field(default_factory=dict)
    optional: set[str] = field(default_factory=set)
    """Names of the dependencies that the service can work without, degraded."""
    started: bool = False
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when shutdown begins; what streams without end should end then."""

    def register(self, name: str, ping: Ping, *, optional: bool = False) -> None:
        """Check a dependency at each readiness probe; `ping` raises where it is not usable."""
        self.pings[name] = ping
        if optional:
            self.optional.add(name)

    async def check(self) -> tuple[str, dict[str, str]]:
        """Ping everything at once; return `ready`, `degraded` or `unready` and what each ping said."""
        names = list(self.pings)
        results = dict(zip(names, await asyncio.gather(*(self._ping(name) for name in names)), strict=True))
        failed = {name for name, result in results.items() if result != "ok"}
        if self.stopping.is_set() or not self.started or failed - self.optional:
            return "unready", results
        return ("degraded" if failed else "ready"), results

    async def _ping(self, name: str) -> str:
        try:
            async with asyncio.timeout(PING_SECONDS):
                await self.pings[name]()
        except Exception as error:  # a ping may fail in any way; that is what it tells
            return f"{type(error).__name__}: {error}".rstrip(": ")
        return "ok"


def health_router(health: Health) -> APIRouter:
    """Serve `/healthz`, `/readyz` and `/metrics`."""
    router = APIRouter(include_in_schema=False)

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok", "service": health.service}

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        status, checks = await health.check()
        body = {"status": status, "service": health.service, "checks": checks}
        return JSONResponse(body, status_code=503 if status == "unready" else 200)

    @router.get("/metrics")
    async def metrics() -> Response:
        body, content_type = render_metrics()
        return Response(body, media_type=content_type)

    return router
