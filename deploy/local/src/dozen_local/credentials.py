"""The keys and passwords of a local deployment, all derived from one master key."""

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dozen_chassis.signing import caller_token, derive_key


@dataclass(frozen=True)
class Credentials:
    """What the processes of a deployment know of each other and nobody else does."""

    master_key: bytes

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read the master key; make one the first time."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            path.write_text(json.dumps({"master_key": secrets.token_hex(32)}) + "\n")
        return cls(bytes.fromhex(json.loads(path.read_text())["master_key"]))

    @property
    def admission_master_key(self) -> bytes:
        """The key from which the gateway derives the key of each service that it admits requests to."""
        return derive_key(self.master_key, "admission")

    def admission_key(self, service: str) -> bytes:
        """Give the key with which a service verifies admissions."""
        return derive_key(self.admission_master_key, f"admission:{service}")

    def grpc_key(self, service: str) -> bytes:
        """Give the key with which a service verifies its gRPC callers."""
        return derive_key(self.master_key, f"grpc:{service}")

    def token(self, caller: str, callee: str) -> str:
        """Give the token with which a caller identifies itself to a service."""
        return caller_token(self.grpc_key(callee), caller)

    def password(self, purpose: str) -> str:
        """Give the password for one purpose, such as `postgres:chat`."""
        return derive_key(self.master_key, f"password:{purpose}").hex()[:24]
