"""What a service is made of: its resources, and what it serves."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import grpc.aio
from fastapi import APIRouter
from google.protobuf.message import Message
from pydantic import SecretStr
from starlette.middleware import Middleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from dozen_chassis.bus import STREAM_SECONDS, Bus
from dozen_chassis.consumer import Subscription
from dozen_chassis.grpc import GrpcService, open_channel
from dozen_chassis.health import Health, Ping
from dozen_chassis.outbox import GroupCommit, Relay
from dozen_chassis.postgres import Database, Repository
from dozen_chassis.tasks import end

log = logging.getLogger(__name__)

_REDELIVERY = timedelta(seconds=STREAM_SECONDS) * 2
"""After this time no event is delivered again."""
_KEPT = timedelta(days=35)
"""How long events can be told again, where they are kept: more than the longest month."""

Opened = TypeVar("Opened")
Record = TypeVar("Record")


@dataclass
class App:
    """All that a service serves; the chassis does the serving."""

    routers: Sequence[APIRouter] = ()
    plain_routes: Sequence[BaseRoute] = ()
    """Raw ASGI routes for hot paths, matched before the routers."""
    hot_paths: Mapping[str, ASGIApp] = field(default_factory=dict)
    """Raw apps for POST at exact paths, before all middleware; see `dozen_chassis.hot`."""
    middleware: Sequence[Middleware] = ()
    admission_key: bytes | None = None
    """Given, every path under `/v1/` needs the gateway's admission."""
    takes_request_ids: bool = True
    """False where clients call directly: they do not choose the id under which a request is charged."""
    body_limits: Sequence[tuple[str, int]] = ()
    """Limits in bytes for path prefixes whose bodies may be larger, or must be smaller, than the rest."""
    grpc: Sequence[GrpcService] = ()
    subscriptions: Sequence[Subscription] = ()


@dataclass
class Resources:
    """Opens what a service stands on, and closes it in reverse when the service ends."""

    service: str
    health: Health
    database: Database | None = None
    bus: Bus | None = None
    failed: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Holds the exception of the first background task that ended; the service ends with it."""
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def postgres(
        self, dsn: SecretStr, *, max_connections: int = 8, keeps: Collection[type[Message]] = ()
    ) -> Database:
        """Open the service's database; without it the service is not ready.

        Events of the types that it `keeps` can be read again for 35 days after they were emitted.
        """
        self.database = await Database.open(
            dsn.get_secret_value(), max_connections=max_connections, keeps=keeps
        )
        self._stack.push_async_callback(self.database.close)
        self.health.register("postgres", self.database.ping)
        repository = Repository(self.database)

        async def forget() -> None:
            while await repository.forget_deliveries(_REDELIVERY):
                pass
            while await repository.forget_kept(_KEPT):
                pass

        self.every("forget events", timedelta(hours=1), forget)
        return self.database

    def jetstream(self, url: SecretStr, *, replicas: int = 1) -> Bus:
        """Keep a connection to NATS, and relay to it what the database's outbox holds.

        Without NATS the service works on, degraded: events wait in the outbox.
        """
        self.bus = Bus(url.get_secret_value(), replicas=replicas)
        self.background("nats", self.bus.run(self.service))
        self.health.register("nats", self.bus.ping, optional=True)
        if self.database is not None:
            self.background("outbox", Relay(self.database, self.bus).run())
        return self.bus

    def group_commit(
        self, write: Callable[[list[Record]], Awaitable[None]], *, window: float = 0.002
    ) -> GroupCommit[Record]:
        """Write the records of many requests together; what waits at the end is still written.

        `window` is in seconds: how long the first record of a group waits for others.
        """
        commits = GroupCommit(write, window=window)
        self.background("group commit", commits.run())
        return commits

    def channel(self, address: str, token: SecretStr) -> grpc.aio.Channel:
        """Open a gRPC channel to another service."""
        channel = open_channel(address, token.get_secret_value())
        self._stack.push_async_callback(channel.close)
        return channel

    async def enter(self, resource: AbstractAsyncContextManager[Opened]) -> Opened:
        """Open any other resource."""
        return await self._stack.enter_async_context(resource)

    def callback(self, close: Callable[[], object]) -> None:
        """Call something at the end."""
        self._stack.callback(close)

    def ping(self, name: str, ping: Ping, *, optional: bool = False) -> None:
        """Ask at each readiness probe whether a dependency is usable; the call raises where it is not."""
        self.health.register(name, ping, optional=optional)

    def background(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run work until the end of the service; should it end before, the service does too."""

        async def endless() -> None:
            await work
            raise RuntimeError(f"'{name}' returned")

        task = asyncio.create_task(endless(), name=name)
        self.watch(task)
        self._stack.push_async_callback(end, task)

    def every(self, name: str, interval: timedelta, job: Callable[[], Awaitable[object]]) -> None:
        """Do a job now and again after each interval; one that fails is logged and tried the next time."""

        async def repeat() -> None:
            while True:
                try:
                    await job()
                except Exception:  # whatever it was, the next time may go better
                    log.exception("'%s' failed", name)
                await asyncio.sleep(interval.total_seconds())

        self.background(name, repeat())

    def watch(self, task: asyncio.Task[Any]) -> None:
        """End the service where a task fails."""
        task.add_done_callback(self._on_end)

    async def close(self) -> None:
        """Close everything."""
        await self._stack.aclose()

    def _on_end(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        log.error("background work '%s' failed", task.get_name(), exc_info=error)
        if not self.failed.done():
            self.failed.set_exception(error)
            self.failed.exception()  # seen, even where the service ends before anybody asks
