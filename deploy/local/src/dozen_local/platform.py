"""The processes of a deployment, and the order in which they start and stop."""

import asyncio
import fcntl
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from dozen_chassis.migrate import migrate, migrations_directory
from dozen_local import ports
from dozen_local.bootstrap import Access, bootstrap
from dozen_local.catalogue import write_catalogue
from dozen_local.credentials import Credentials
from dozen_local.environment import (
    database_dsn,
    inherited_environment,
    service_environment,
    user_environment,
    write_env,
)
from dozen_local.layout import SERVICES, Layout
from dozen_local.nats import NatsServer
from dozen_local.nats_users import service_users
from dozen_local.postgres import PostgresServer
from dozen_local.processes import Process, Program, http_ok, stop_all, wait_until_ready

READY_SECONDS = 120.0

Report = Callable[[str, str], None]
"""Takes a step and its new state: `starting`, `ready`, `running` (it already was) or `stopped`."""


class PlatformError(Exception):
    """The platform cannot do what was asked; the message says why and what helps."""


class Platform:
    """One deployment: PostgreSQL, NATS, the inference sidecar and the twelve services."""

    def __init__(
        self,
        layout: Layout,
        credentials: Credentials,
        settings: Mapping[str, Mapping[str, str]] | None = None,
        models: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        """Take further environment variables of services, by their names, and further models."""
        self.layout = layout
        self.credentials = credentials
        self.postgres = PostgresServer(
            layout.home / "postgres",
            layout.postgres_port,
            pid_file=layout.pid_file("postgres"),
            log_file=layout.log_file("postgres"),
        )
        self.nats = NatsServer(
            layout.home / "nats",
            layout.nats_port,
            layout.nats_monitor_port,
            service_users({name: credentials.password(f"nats:{name}") for name in SERVICES}),
            pid_file=layout.pid_file("nats"),
            log_file=layout.log_file("nats"),
        )
        self._settings = settings or {}
        self._models = models
        environment = inherited_environment()
        processes = [
            self.postgres.process,
            self.nats.process,
            self._llama(environment),
            *(self._service(name, environment) for name in SERVICES),
        ]
        self.processes = {process.name: process for process in processes}
        """By name, in the order in which they start."""

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other commands from starting or stopping the same deployment meanwhile."""
        self.layout.home.mkdir(parents=True, exist_ok=True)
        with (self.layout.home / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise PlatformError("Another command is at work on this deployment; wait for it.") from None
            yield

    def up(self, report: Report) -> Access:
        """Start what does not run and return access to it.

        Where that fails or is interrupted, what this call started is stopped.
        """
        missing = [process for process in self.processes.values() if process.pid is None]
        for process in self.processes.values():
            if process not in missing:
                report(process.name, "running")
        self._refuse_busy_ports(missing)
        try:
            self._start_in_order(missing, report)
            report("account", "starting")
            access = bootstrap(self.layout, self.credentials)
            report("account", "ready")
        except BaseException:
            for process in self._stop(missing):
                report(process.name, "stopped")
            raise
        write_env(self.layout.env_file, user_environment(self.layout, self.credentials, access.api_key))
        return access

    def restart(self, names: Sequence[str], report: Report) -> None:
        """Stop some processes and start them again."""
        unknown = sorted(set(names) - set(self.processes))
        if unknown:
            raise PlatformError(f"There is no {', '.join(unknown)}; there are {', '.join(self.processes)}.")
        processes = [process for name, process in self.processes.items() if name in names]
        self._stop(processes)
        self._refuse_busy_ports(processes)
        self._start_in_order(processes, report)

    def down(self) -> list[str]:
        """Stop everything, what was started last first; return the names of what was stopped."""
        return [process.name for process in self._stop(self.processes.values())]

    @staticmethod
    def _stop(processes: Collection[Process]) -> list[Process]:
        running = [process for process in processes if process.pid is not None]
        stop_all(
            [process for process in processes if process.name in SERVICES]
        )  # while they have what they need
        stop_all([process for process in processes if process.name not in SERVICES])
        return running

    def _start_in_order(self, missing: Sequence[Process], report: Report) -> None:
        def start(names: Iterable[str]) -> None:
            for process in missing:
                if process.name in names:
                    report(process.name, "starting")
                    process.start()

        def wait(names: Iterable[str]) -> None:
            waiting = [process for process in missing if process.name in names]
            for process in wait_until_ready(waiting, READY_SECONDS):
                report(process.name, "ready")

        write_catalogue(self.layout.catalogue_file, self.layout.port_offset, further=self._models)
        self.nats.initialize()
        start(["nats", "llama"])
        self.postgres.initialize()
        start(["postgres"])
        wait(["postgres", "nats"])
        if {process.name for process in missing} & {"postgres", *SERVICES}:
            report("databases", "starting")
            asyncio.run(self._prepare_databases())
            report("databases", "ready")
        start(SERVICES)
        wait(["llama", *SERVICES])

    async def _prepare_databases(self) -> None:
        await self.postgres.create_databases(
            {self.layout.database(name): self.credentials.password(f"postgres:{name}") for name in SERVICES}
        )
        await asyncio.gather(
            *(
                migrate(
                    database_dsn(name, self.layout, self.credentials), migrations_directory(f"dozen_{name}")
                )
                for name in SERVICES
            )
        )

    @staticmethod
    def _refuse_busy_ports(processes: Iterable[Process]) -> None:
        busy = [
            f"port {port}, which {process.name} needs, is taken by {ports.owner(port)}"
            for process in processes
            for port in process.program.ports.values()
            if not ports.is_free(port)
        ]
        if busy:
            raise PlatformError(
                "Cannot start: " + ";\n".join(busy) + ".\n"
                "Stop that process, or move all ports of Dozen: make up PORT_OFFSET=1000"
            )

    def _llama(self, environment: dict[str, str]) -> Process:
        port = self.layout.llama_port
        program = Program(
            name="llama",
            argv=[sys.executable, "-m", "dozen_local.sidecar", "--port", str(port)],
            is_ready=lambda: http_ok(port, "/health"),
            ports={"http": port},
            environment=environment,
            stop_seconds=5,
        )
        return self._process(program)

    def _service(self, name: str, environment: dict[str, str]) -> Process:
        port = self.layout.http_port(name)
        program = Program(
            name=name,
            argv=[sys.executable, "-m", f"dozen_{name}"],
            is_ready=lambda: http_ok(port, "/readyz"),
            ports={"http": port, "grpc": self.layout.grpc_port(name)},
            environment={
                **service_environment(name, self.layout, self.credentials, environment),
                **self._settings.get(name, {}),
            },
        )
        return self._process(program)

    def _process(self, program: Program) -> Process:
        return Process(program, self.layout.pid_file(program.name), self.layout.log_file(program.name))
