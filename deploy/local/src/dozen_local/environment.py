"""Environment variables: those of each service process, and those for people in `.dozen/env`."""

import json
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from dozen_local.credentials import Credentials
from dozen_local.layout import HOST, SERVICES, Layout

CALLS = {
    "chat": ("embeddings",),
    "completion": ("embeddings",),
    "gateway": ("credits",),
    "jobs": ("gateway",),
}
"""Which service calls which over gRPC."""

PASSED_ON = ("DOZEN_LOG_LEVEL", "DOZEN_OTLP_ENDPOINT")


def inherited_environment() -> dict[str, str]:
    """Give the caller's environment without variables of ours, which `.dozen/env` may have left in it."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in PASSED_ON or not name.startswith(("DOZEN_", "OPENAI_"))
    }


def service_environment(
    service: str, layout: Layout, credentials: Credentials, inherited: Mapping[str, str]
) -> dict[str, str]:
    """Give a service its settings."""
    nats_password = credentials.password(f"nats:{service}")
    return {
        **inherited,
        "DOZEN_HTTP_HOST": HOST,
        "DOZEN_HTTP_PORT": str(layout.http_port(service)),
        "DOZEN_GRPC_HOST": HOST,
        "DOZEN_GRPC_PORT": str(layout.grpc_port(service)),
        "DOZEN_GRPC_KEY": credentials.grpc_key(service).hex(),
        "DOZEN_ADMISSION_KEY": credentials.admission_key(service).hex(),
        "DOZEN_POSTGRES_DSN": database_dsn(service, layout, credentials),
        "DOZEN_NATS_URL": f"nats://{service}:{nats_password}@{HOST}:{layout.nats_port}",
        **_callees(service, layout, credentials),
        **_own_settings(service, layout, credentials),
    }


def user_environment(layout: Layout, credentials: Credentials, api_key: str) -> dict[str, str]:
    """Give what a user of the deployment needs."""
    return {
        "OPENAI_BASE_URL": f"{layout.http_address('gateway')}/v1",
        "OPENAI_API_KEY": api_key,
        "DOZEN_URL": layout.http_address("gateway"),
        "DOZEN_ADMIN_URL": layout.http_address("admin"),
        "DOZEN_ADMIN_PASSWORD": credentials.password("admin"),
    }


def write_env(path: Path, values: Mapping[str, str]) -> None:
    """Write variables in a form that a shell reads."""
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items()))


def read_env(path: Path) -> dict[str, str]:
    """Read what `write_env` wrote; nothing where there is no file."""
    if not path.exists():
        return {}
    pairs = (line.split("=", 1) for line in path.read_text().splitlines())
    return {name: "".join(shlex.split(value)) for name, value in pairs}


def database_dsn(service: str, layout: Layout, credentials: Credentials) -> str:
    """Give the connection string of a service's database."""
    name = layout.database(service)
    return f"postgresql://{name}:{credentials.password(f'postgres:{service}')}@{HOST}:{layout.postgres_port}/{name}"


def _callees(service: str, layout: Layout, credentials: Credentials) -> dict[str, str]:
    settings = {}
    for callee in CALLS.get(service, ()):
        settings[f"DOZEN_{callee.upper()}_ADDRESS"] = layout.grpc_address(callee)
        settings[f"DOZEN_{callee.upper()}_TOKEN"] = credentials.token(service, callee)
    return settings


def _own_settings(service: str, layout: Layout, credentials: Credentials) -> dict[str, str]:
    match service:
        case "gateway":
            return {
                "DOZEN_ADMISSION_MASTER_KEY": credentials.admission_master_key.hex(),
                "DOZEN_SERVICE_ADDRESSES": json.dumps({name: layout.http_address(name) for name in SERVICES}),
            }
        case "chat" | "completion":
            return {
                "DOZEN_INFERENCE_URL": f"http://{HOST}:{layout.llama_port}",
                "DOZEN_PROVIDER_KEYS_DIRECTORY": str(layout.provider_keys_directory),
            }
        case "models":
            return {"DOZEN_SEED_FILE": str(layout.catalogue_file)}
        case "storage":
            return {"DOZEN_OBJECT_STORE_URL": layout.files_directory.as_uri()}
        case "admin":
            return {
                "DOZEN_ADMIN_PASSWORD": credentials.password("admin"),
                "DOZEN_SERVICE_ADDRESSES": json.dumps({name: layout.http_address(name) for name in SERVICES}),
            }
    return {}
