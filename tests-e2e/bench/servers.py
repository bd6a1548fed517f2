"""Parts of a platform: real servers, as safe against a power cut as in earnest, and some of the services."""

import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.rounds import REST_CORE, SERVER_CORE, on_core
from dozen_chassis.migrate import migrate, migrations_directory
from dozen_local.environment import database_dsn, inherited_environment, service_environment
from dozen_local.platform import Platform
from dozen_local.processes import Process, Program, http_ok
from journey import unstarted_platform


@contextmanager
def databases_and_nats(
    services: Sequence[str],
    *,
    core: int | None = REST_CORE,
    settings: Mapping[str, Mapping[str, str]] | None = None,
) -> Iterator[Platform]:
    """Run PostgreSQL, with the databases of some services, and NATS for the block; stop all at its end.

    PostgreSQL waits for the disk at every commit and NATS at every message, as wherever money is kept.
    `settings` are further environment variables of services, by their names.
    """
    with unstarted_platform(settings) as platform:
        with on_core(core):
            platform.nats.start()
            platform.postgres.start()
        asyncio.run(_create_databases(platform, services))
        yield platform


def start(process: Process, *, core: int | None = SERVER_CORE, ready_seconds: float = 60) -> int:
    """Start a process and wait until it serves; give its id."""
    with on_core(core):
        process.start()
    process.wait_until_ready(ready_seconds)
    assert process.pid is not None
    return process.pid


@contextmanager
def program(
    platform: Platform, module: str, *arguments: str, port: int, service: str | None = None
) -> Iterator[Process]:
    """Give a process, not yet started, that runs a module of ours; perhaps in the place of a service."""
    layout = platform.layout
    environment = inherited_environment()
    if service is not None:
        environment = service_environment(service, layout, platform.credentials, environment)
    name = "-".join((module, str(port)))
    process = Process(
        Program(
            name=name,
            argv=[sys.executable, "-m", module, *arguments],
            is_ready=lambda: http_ok(port, "/readyz"),
            environment={**environment, "PYTHONPATH": os.pathsep.join(sys.path)},
        ),
        layout.pid_file(name),
        layout.log_file(name),
    )
    try:
        yield process
    finally:
        process.stop()


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    *,
    is_ready: Callable[[], bool],
    core: int | None = SERVER_CORE,
    environment: Mapping[str, str] | None = None,
    ready_seconds: float = 60,
) -> Iterator[int]:
    """Run a program that is none of our services for the block, and give the id of its process."""
    with tempfile.TemporaryDirectory(prefix="dozen-bench-") as directory:
        home = Path(directory)
        environment = {**plain_environment(), **(environment or {})}
        program = Program(name, command, is_ready, environment=environment, stop_seconds=5)
        process = Process(program, home / "pid", home / "log")
        try:
            yield start(process, core=core, ready_seconds=ready_seconds)
        finally:
            process.stop()


def plain_environment() -> dict[str, str]:
    """Give an environment without what is ours."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "VIRTUAL_ENV") and not name.startswith(("DOZEN_", "OPENAI_"))
    }


async def _create_databases(platform: Platform, services: Sequence[str]) -> None:
    layout, credentials = platform.layout, platform.credentials
    await platform.postgres.create_databases(
        {layout.database(name): credentials.password(f"postgres:{name}") for name in services}
    )
    for name in services:
        await migrate(database_dsn(name, layout, credentials), migrations_directory(f"dozen_{name}"))
