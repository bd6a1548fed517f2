"""Names, ports and paths of a local deployment."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

REPOSITORY = Path(__file__).resolve().parents[4]

LAYOUT_FILE = "layout.json"
HOST = "127.0.0.1"

SERVICE_PORTS = {
    "gateway": (8000, 8100),
    "admin": (8001, 8101),
    "chat": (8110, 8111),
    "completion": (8120, 8121),
    "embeddings": (8130, 8131),
    "images": (8140, 8141),
    "audio": (8150, 8151),
    "credits": (8160, 8161),
    "models": (8170, 8171),
    "jobs": (8180, 8181),
    "storage": (8190, 8191),
    "events": (8200, 8201),
}
"""HTTP and gRPC port of each service."""
LLAMA_PORT = 8210
POSTGRES_PORT = 8220
NATS_PORT = 8230
NATS_MONITOR_PORT = 8231

SERVICES = tuple(SERVICE_PORTS)

LLAMA_MODEL = "smollm2-135m-instruct"
"""The name under which the inference sidecar serves its model."""


@dataclass(frozen=True)
class Layout:
    """Where everything of one local deployment is."""

    home: Path
    """The one directory that holds all state."""
    port_offset: int = 0
    """Added to every port, so that deployments can stand side by side."""

    @classmethod
    def open(cls, home: Path) -> Self:
        """Give the layout with which a deployment was last started."""
        file = home / LAYOUT_FILE
        return cls(home, json.loads(file.read_text())["port_offset"] if file.exists() else 0)

    def save(self) -> None:
        """Keep the layout for the commands that follow."""
        (self.home / LAYOUT_FILE).write_text(json.dumps({"port_offset": self.port_offset}) + "\n")

    def http_port(self, service: str) -> int:
        """Give the HTTP port of a service."""
        return SERVICE_PORTS[service][0] + self.port_offset

    def grpc_port(self, service: str) -> int:
        """Give the gRPC port of a service."""
        return SERVICE_PORTS[service][1] + self.port_offset

    def http_address(self, service: str) -> str:
        """Give the base URL of a service."""
        return f"http://{HOST}:{self.http_port(service)}"

    def grpc_address(self, service: str) -> str:
        """Give the address of a service's gRPC server."""
        return f"{HOST}:{self.grpc_port(service)}"

    @property
    def llama_port(self) -> int:
        """Port of the inference sidecar."""
        return LLAMA_PORT + self.port_offset

    @property
    def postgres_port(self) -> int:
        """Port of PostgreSQL."""
        return POSTGRES_PORT + self.port_offset

    @property
    def nats_port(self) -> int:
        """Port of NATS."""
        return NATS_PORT + self.port_offset

    @property
    def nats_monitor_port(self) -> int:
        """Port of NATS's monitoring pages."""
        return NATS_MONITOR_PORT + self.port_offset

    def pid_file(self, name: str) -> Path:
        """Give the pid file of a process."""
        return self.home / "run" / f"{name}.pid"

    def log_file(self, name: str) -> Path:
        """Give the log file of a process."""
        return self.home / "log" / f"{name}.log"

    @property
    def credentials_file(self) -> Path:
        """The master key."""
        return self.home / "secrets.json"

    @property
    def env_file(self) -> Path:
        """What a user needs: addresses, key and password, for a shell to read."""
        return self.home / "env"

    @property
    def catalogue_file(self) -> Path:
        """The catalogue of models with the addresses of this deployment."""
        return self.home / "models.yaml"

    @property
    def provider_keys_directory(self) -> Path:
        """Where keys of providers may be put, each in a file by the name of its secret."""
        return self.home / "provider-keys"

    @property
    def files_directory(self) -> Path:
        """Where the storage service keeps bytes."""
        return self.home / "files"

    @staticmethod
    def database(service: str) -> str:
        """Give the name of a service's database and role."""
        return f"dozen_{service}"
