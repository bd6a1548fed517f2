"""The life of a service's process: settings, servers, signals and an orderly end."""

import argparse
import asyncio
import gc
import logging
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeVar

import uvicorn
import uvloop
from pydantic import ValidationError
from pydantic_settings import SettingsError

from dozen_chassis.app import App, Resources
from dozen_chassis.consumer import Consumer
from dozen_chassis.grpc import start_grpc
from dozen_chassis.health import Health, health_router
from dozen_chassis.hot import HotPaths, HotProtocol
from dozen_chassis.http import create_http
from dozen_chassis.logging import RequestLog, configure_logging
from dozen_chassis.migrate import migrate, migrations_directory
from dozen_chassis.settings import ServiceSettings
from dozen_chassis.tasks import end
from dozen_chassis.telemetry import configure_tracing

log = logging.getLogger(__name__)

AnySettings = TypeVar("AnySettings", bound=ServiceSettings)
CreateApp = Callable[[AnySettings, Resources], Awaitable[App]]

_COLLECTIONS = 50_000, 10, 10
"""When to look for cycles: hardly anything lives as long as that many others, so that little is looked at."""
KEEP_ALIVE_SECONDS = 75
"""Longer than the pools of our clients keep a connection, so that none is closed under a request."""


def run(create_app: CreateApp[AnySettings], settings_class: type[AnySettings]) -> None:
    """Run the command line of a service: serve, or migrate its database."""
    package = create_app.__module__.split(".")[0]
    service = package.removeprefix("dozen_")
    parser = argparse.ArgumentParser(prog=package, description=sys.modules[package].__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("serve", help="serve until terminated (the default)")
    migration = commands.add_parser("migrate", help="apply what is new of the migrations")
    migration.add_argument("--phase", choices=["pre", "post", "all"], default="all")
    arguments = parser.parse_args()
    try:
        settings = settings_class()
    except ValidationError as error:
        faults = [
            f"DOZEN_{'.'.join(map(str, fault['loc'])).upper()}: {fault['msg']}" for fault in error.errors()
        ]
        sys.exit("\n".join([f"{package} cannot start; its settings are not valid:", *faults]))
    except SettingsError as error:
        sys.exit(f"{package} cannot start; {error}")
    configure_logging(service, settings.log_level)
    if arguments.command == "migrate":
        dsn, directory = settings.postgres_dsn.get_secret_value(), migrations_directory(package)
        for name in asyncio.run(migrate(dsn, directory, arguments.phase)):
            log.info("applied %s", name)
        return
    uvloop.run(_serve(service, create_app, settings))


async def _serve(service: str, create_app: CreateApp[AnySettings], settings: AnySettings) -> None:
    tracing = configure_tracing(service, settings.otlp_endpoint)
    terminated = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, terminated.set)
    try:
        async with serving(service, create_app, settings) as server:
            log.info("serving", extra={"http": server.http_port, "grpc": server.grpc_port})
            # Start-up's objects live for ever; skipping them keeps collections short (p99: 28 to 5 ms).
            gc.collect()
            gc.freeze()
            gc.set_threshold(*_COLLECTIONS)
            ended = asyncio.ensure_future(terminated.wait())
            await asyncio.wait((ended, server.failed), return_when=asyncio.FIRST_COMPLETED)
            log.info("stopping")
            if server.failed.done():
                server.failed.result()
    finally:
        tracing.shutdown()


@dataclass(frozen=True)
class Serving:
    """A service that takes traffic."""

    http_port: int
    grpc_port: int
    failed: "asyncio.Future[None]"
    """Holds an exception once the service cannot go on."""


@asynccontextmanager
async def serving(
    service: str, create_app: CreateApp[AnySettings], settings: AnySettings
) -> AsyncIterator[Serving]:
    """Serve a service for the block; then let what runs finish, for `shutdown_seconds` at most."""
    resources = Resources(service, Health(service))
    stopping, deadline = resources.health.stopping, 0.0
    try:
        app = await create_app(settings, resources)
        consumers = [
            asyncio.create_task(consumer.run(stopping), name=consumer.durable)
            for consumer in _consumers(app, resources, is_traced=settings.otlp_endpoint is not None)
        ]
        try:
            async with _http(app, settings, resources) as http_port, _grpc(app, settings) as grpc_port:
                for consumer in consumers:
                    resources.watch(consumer)
                resources.health.started = True
                try:
                    yield Serving(http_port, grpc_port, resources.failed)
                finally:
                    stopping.set()
                    deadline = time.monotonic() + settings.shutdown_seconds
        finally:
            stopping.set()
            if consumers:
                _, late = await asyncio.wait(consumers, timeout=max(0, deadline - time.monotonic()))
                await end(*late)
    finally:
        await resources.close()


def _consumers(app: App, resources: Resources, *, is_traced: bool) -> list[Consumer]:
    if not app.subscriptions:
        return []
    bus, database = resources.bus, resources.database
    assert bus is not None, "a service that takes events opens JetStream"
    assert database is not None, "a service that takes events opens its database"
    return [
        Consumer(resources.service, subscription, bus, database, is_traced=is_traced)
        for subscription in app.subscriptions
    ]


@asynccontextmanager
async def _grpc(app: App, settings: ServiceSettings) -> AsyncIterator[int]:
    key = bytes.fromhex(settings.grpc_key.get_secret_value())
    server, port = await start_grpc(settings.grpc_host, settings.grpc_port, key, app.grpc)
    try:
        yield port
    finally:
        await server.stop(settings.shutdown_seconds)


@asynccontextmanager
async def _http(app: App, settings: ServiceSettings, resources: Resources) -> AsyncIterator[int]:
    http = create_http(
        resources.service,
        [health_router(resources.health), *app.routers],
        plain_routes=app.plain_routes,
        admission_key=app.admission_key,
        takes_request_ids=app.takes_request_ids,
        max_body_bytes=settings.max_body_bytes,
        body_limits=app.body_limits,
        middleware=app.middleware,
    )
    request_log = RequestLog(resources.service)
    resources.callback(request_log.flush)
    hot = HotPaths(
        http,
        app.hot_paths,
        admission_key=app.admission_key,
        takes_request_ids=app.takes_request_ids,
        max_body_bytes=settings.max_body_bytes,
        body_limits=app.body_limits,
        is_traced=settings.otlp_endpoint is not None,
        log=request_log if log.isEnabledFor(logging.INFO) else None,
    )
    config = uvicorn.Config(
        hot,
        http=HotProtocol,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nobody is believed to be somebody else
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(settings.shutdown_seconds),
    )
    with socket.create_server((settings.http_host, settings.http_port), backlog=2048) as listener:
        # Connections inherit it; asyncio would set it only where a socket says that it speaks TCP.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = _HttpServer(config, resources.health.stopping)
        task = asyncio.create_task(server.serve(sockets=[listener]), name="http")
        resources.watch(task)
        try:
            yield listener.getsockname()[1]
        finally:
            resources.health.stopping.set()
            await task


class _HttpServer(uvicorn.Server):
    """uvicorn in a process whose signals are ours to handle; it ends once `stopping` is set."""

    def __init__(self, config: uvicorn.Config, stopping: asyncio.Event) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def on_tick(self, counter: int) -> bool:
        return await super().on_tick(counter) or self._stopping.is_set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
