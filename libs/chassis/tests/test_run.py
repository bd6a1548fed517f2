"""The life of a service: in this process, and as the process that it is."""

import asyncio
import json
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import grpc.aio
import httpx
import pytest
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from grpc_health.v1 import health_pb2, health_pb2_grpc
from nats.aio.client import Client

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen_chassis.app import App, Resources
from dozen_chassis.consumer import Subscription
from dozen_chassis.events import Delivery
from dozen_chassis.run import Serving, serving
from dozen_chassis.settings import ServiceSettings
from dozen_local.nats import temporary_nats
from dozen_testing.conditions import eventually

pytestmark = pytest.mark.integration


@dataclass
class Sample:
    """A service with one of everything; the test decides when its work ends."""

    release: asyncio.Event = field(default_factory=asyncio.Event)
    break_down: asyncio.Event = field(default_factory=asyncio.Event)
    handling: asyncio.Event = field(default_factory=asyncio.Event)
    written: list[str] = field(default_factory=list)

    async def create_app(self, settings: ServiceSettings, stack: Resources) -> App:
        """Build the service."""
        await stack.postgres(settings.postgres_dsn)
        stack.jetstream(settings.nats_url)
        commits = stack.group_commit(self._write)
        stack.background("heart", self._beat())
        router = APIRouter()

        @router.get("/stream")
        async def stream() -> StreamingResponse:
            async def pieces() -> AsyncIterator[bytes]:
                try:
                    yield b"begun "
                    await self.release.wait()
                    yield b"done"
                finally:
                    await commits.put("streamed")

            return StreamingResponse(pieces())

        return App(routers=[router], subscriptions=[Subscription(UsageReported, self._handle)])

    async def _write(self, records: list[str]) -> None:
        self.written += records

    async def _beat(self) -> None:
        await self.break_down.wait()
        raise ZeroDivisionError("the heart stands still")

    async def _handle(self, event: UsageReported, delivery: Delivery) -> None:
        self.handling.set()
        await self.release.wait()


@asynccontextmanager
async def client_of(server: Serving) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.http_port}") as client:
        yield client


async def test_a_service_tells_how_it_is(base_settings: dict[str, Any], nats_client: Client) -> None:
    sample = Sample()
    settings = ServiceSettings(**base_settings)
    async with serving("credits", sample.create_app, settings) as server, client_of(server) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok", "service": "credits"}
        await eventually(lambda: _readiness(client, 200, "ready"))
        ready = (await client.get("/readyz")).json()
        assert ready["checks"] == {"postgres": "ok", "nats": "ok"}
        metrics = await client.get("/metrics")
        assert metrics.headers["content-type"].startswith("text/plain")
        assert "dozen_http_requests_total" in metrics.text
        assert (await client.get("/docs")).status_code == 404


async def _readiness(client: httpx.AsyncClient, code: int, status: str) -> bool:
    answer = await client.get("/readyz")
    return (answer.status_code, answer.json()["status"]) == (code, status)


async def test_a_service_starts_without_nats_and_connects_later(base_settings: dict[str, Any]) -> None:
    with temporary_nats() as nats_server:
        nats_server.stop()
        settings = ServiceSettings(**{**base_settings, "nats_url": nats_server.url("credits")})
        async with (
            serving("credits", Sample().create_app, settings) as server,
            client_of(server) as client,
        ):
            assert await _readiness(client, 200, "degraded")
            await asyncio.to_thread(nats_server.start)
            await eventually(lambda: _readiness(client, 200, "ready"))


async def test_a_service_without_its_database_takes_no_traffic(
    base_settings: dict[str, Any], nats_client: Client
) -> None:
    settings = ServiceSettings(**{**base_settings, "postgres_dsn": "postgresql://u:p@127.0.0.1:9/nothing"})
    async with serving("credits", Sample().create_app, settings) as server, client_of(server) as client:
        assert await _readiness(client, 503, "unready")
        assert (await client.get("/healthz")).status_code == 200


async def test_background_work_that_ends_ends_the_service(
    base_settings: dict[str, Any], nats_client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    sample = Sample()
    async with serving("credits", sample.create_app, ServiceSettings(**base_settings)) as server:
        assert not server.failed.done()
        sample.break_down.set()
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(asyncio.shield(server.failed), 5)
    assert "background work 'heart' failed" in caplog.messages


async def test_a_port_that_is_taken_is_told_and_nothing_stays_open(
    base_settings: dict[str, Any], nats_client: Client
) -> None:
    async def start(http_port: int) -> None:
        settings = ServiceSettings(**{**base_settings, "http_port": http_port})
        async with serving("credits", Sample().create_app, settings):
            pass

    with socket.create_server(("127.0.0.1", 0)) as taken:
        before = asyncio.all_tasks()
        with pytest.raises(OSError, match="in use"):
            await start(taken.getsockname()[1])
        await eventually(lambda: _no_more_than(before))


async def _no_more_than(before: set[asyncio.Task[Any]]) -> bool:
    return asyncio.all_tasks() <= before


async def test_what_runs_at_the_end_is_finished(base_settings: dict[str, Any], nats_client: Client) -> None:
    sample = Sample()
    settings = ServiceSettings(**{**base_settings, "shutdown_seconds": 30})
    async with _stopped_while_busy(sample, settings, nats_client) as (answer, watching, ended):
        sample.release.set()
        assert (await answer.aread()).endswith(b"done")
        watching.cancel()
        async with asyncio.timeout(20):
            await ended
    assert sample.written == ["streamed"]
    info = await nats_client.jetstream().consumer_info("CREDITS", "credits-UsageReported")
    assert info.num_pending == 0


async def test_what_does_not_end_is_cut_but_what_it_used_is_written(
    base_settings: dict[str, Any], nats_client: Client
) -> None:
    sample = Sample()
    settings = ServiceSettings(**{**base_settings, "shutdown_seconds": 2})
    began = time.monotonic()
    async with _stopped_while_busy(sample, settings, nats_client) as (answer, _, ended):
        with pytest.raises(httpx.RemoteProtocolError):
            await answer.aread()
        await ended
    assert time.monotonic() - began < 5  # HTTP, gRPC and consumers end side by side
    assert sample.written == ["streamed"]


@asynccontextmanager
async def _stopped_while_busy(
    sample: Sample, settings: ServiceSettings, nats_client: Client
) -> AsyncIterator[tuple[httpx.Response, Any, "asyncio.Task[None]"]]:
    """Stop a service while it answers a request, streams over gRPC and handles an event."""
    stop = asyncio.Event()
    started: asyncio.Future[Serving] = asyncio.get_running_loop().create_future()

    async def serve() -> None:
        async with serving("credits", sample.create_app, settings) as server:
            started.set_result(server)
            await stop.wait()

    ended = asyncio.create_task(serve())
    server = await asyncio.wait_for(started, 20)
    async with (
        client_of(server) as client,
        client.stream("GET", "/stream") as answer,
        grpc.aio.insecure_channel(f"127.0.0.1:{server.grpc_port}") as channel,
    ):
        health: Any = health_pb2_grpc.HealthStub(channel)
        watching = health.Watch(health_pb2.HealthCheckRequest())
        await watching.read()
        await eventually(lambda: _publish(nats_client))
        await asyncio.wait_for(sample.handling.wait(), 20)
        stop.set()
        yield answer, watching, ended


async def _publish(client: Client) -> bool:
    with suppress(Exception):
        await client.jetstream().publish("dozen.credits.v1.UsageReported", b"")
        return True
    return False


PACKAGE = {
    "__init__.py": '"""Sample: a service of the tests."""',
    "__main__.py": """
from dozen_chassis.run import run
from dozen_sample.app import Settings, create_app

run(create_app, Settings)
""",
    "app.py": """
from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from dozen_chassis.app import App
from dozen_chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    addresses: dict[str, str] = {}


async def create_app(settings, stack):
    await stack.postgres(settings.postgres_dsn)
    stack.jetstream(settings.nats_url)
    router = APIRouter()

    @router.get("/stream")
    async def stream():
        async def pieces():
            yield b"begun "
            await stack.health.stopping.wait()
            yield b"done"

        return StreamingResponse(pieces())

    @router.get("/break")
    async def break_down():
        stack.failed.set_exception(ZeroDivisionError("broken down"))

    return App(routers=[router])
""",
    "migrations/0001_pre_names.sql": "create table names (name text primary key);",
    "migrations/0002_post_names.sql": "alter table names add column age integer;",
}


@dataclass
class Program:
    """The sample service as a process."""

    directory: Path
    environment: dict[str, str]

    async def start(self, *arguments: str, **changes: str | None) -> asyncio.subprocess.Process:
        """Start it with some settings changed; None leaves one out."""
        settings = {**self.environment, **changes}
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "dozen_sample", *arguments,
            env={name: value for name, value in settings.items() if value is not None},
            cwd=self.directory,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def run(self, *arguments: str, **changes: str | None) -> tuple[int | None, str]:
        """Run it to its end; give the exit code and what it wrote."""
        process = await self.start(*arguments, **changes)
        async with asyncio.timeout(30):
            _, stderr = await process.communicate()
        return process.returncode, stderr.decode()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[tuple[asyncio.subprocess.Process, httpx.AsyncClient]]:
        """Run it until the block ends; give a client of its HTTP."""
        process = await self.start()
        assert process.stderr
        try:
            async with asyncio.timeout(30):
                while (line := json.loads(await process.stderr.readline()))["message"] != "serving":
                    pass
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{line['http']}") as client:
                yield process, client
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()


@pytest.fixture
def program(base_settings: dict[str, Any], tmp_path: Path) -> Program:
    for name, text in PACKAGE.items():
        file = tmp_path / "dozen_sample" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    environment = {f"DOZEN_{name.upper()}": str(value) for name, value in base_settings.items()}
    return Program(tmp_path, environment)


async def test_a_process_says_which_settings_are_missing_or_wrong(program: Program) -> None:
    code, written = await program.run(DOZEN_POSTGRES_DSN=None, DOZEN_GRPC_PORT="many", DOZEN_NATS_URL=None)
    assert code == 1
    assert written.splitlines() == [
        "dozen_sample cannot start; its settings are not valid:",
        "DOZEN_GRPC_PORT: Input should be a valid integer, unable to parse string as an integer",
        "DOZEN_POSTGRES_DSN: Field required",
        "DOZEN_NATS_URL: Field required",
    ]
    code, written = await program.run(DOZEN_ADDRESSES="{s3cret")
    assert code == 1
    assert written.startswith('dozen_sample cannot start; error parsing value for field "addresses"')
    assert "Traceback" not in written
    assert "s3cret" not in written


async def test_a_process_finishes_a_running_request_when_it_is_terminated(program: Program) -> None:
    async with program.serving() as (process, client), client.stream("GET", "/stream") as answer:
        pieces = answer.aiter_bytes()
        assert await anext(pieces) == b"begun "
        process.send_signal(signal.SIGTERM)
        assert await anext(pieces) == b"done"
        assert await asyncio.wait_for(process.wait(), 10) == 0


async def test_a_process_ends_with_an_error_when_its_service_breaks_down(program: Program) -> None:
    async with program.serving() as (process, client):
        await client.get("/break")
        assert process.stderr
        written = await asyncio.wait_for(process.stderr.read(), 10)
        assert await process.wait() == 1
    assert b"ZeroDivisionError: broken down" in written


async def test_the_command_migrate_applies_what_is_new(program: Program, postgres_dsn: str) -> None:
    def names(written: str) -> list[str]:
        return [json.loads(line)["message"] for line in written.splitlines()]

    code, written = await program.run("migrate", "--phase", "pre")
    assert (code, names(written)) == (0, ["applied 0001_pre_names.sql"])
    connection = await asyncpg.connect(postgres_dsn)
    columns = "select count(*) from information_schema.columns where table_name = 'names'"
    assert await connection.fetchval(columns) == 1
    code, written = await program.run("migrate")
    assert (code, names(written)) == (0, ["applied 0002_post_names.sql"])
    assert await connection.fetchval(columns) == 2
    await connection.close()


async def test_a_process_that_cannot_reach_its_database_keeps_the_password(program: Program) -> None:
    code, written = await program.run("migrate", DOZEN_POSTGRES_DSN="postgresql://u:s3cret@127.0.0.1:9/d")
    assert code == 1
    assert "ConnectionRefusedError" in written
    assert "s3cret" not in written
