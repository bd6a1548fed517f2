"""Each process gets its own settings and nobody else's."""

import shlex
import subprocess
from pathlib import Path

import pytest

from dozen_chassis.signing import verify_caller
from dozen_local.credentials import Credentials
from dozen_local.environment import read_env, service_environment, write_env
from dozen_local.layout import SERVICES, Layout

LAYOUT = Layout(Path("/srv/dozen"), port_offset=1000)
CREDENTIALS = Credentials(b"m" * 32)


def test_the_master_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "secrets.json"
    assert Credentials.open(path) == Credentials.open(path)
    assert path.stat().st_mode & 0o777 == 0o600


def test_no_two_services_share_a_secret() -> None:
    seen: dict[str, str] = {}
    for service in SERVICES:
        environment = service_environment(service, LAYOUT, CREDENTIALS, {})
        for name in ("DOZEN_POSTGRES_DSN", "DOZEN_NATS_URL", "DOZEN_GRPC_KEY", "DOZEN_ADMISSION_KEY"):
            assert environment[name] not in seen.values()
            seen[f"{service} {name}"] = environment[name]
        assert CREDENTIALS.master_key.hex() not in environment.values()


def test_ports_and_addresses_follow_the_offset() -> None:
    environment = service_environment("jobs", LAYOUT, CREDENTIALS, {})
    assert environment["DOZEN_HTTP_PORT"] == "9180"
    assert environment["DOZEN_GATEWAY_ADDRESS"] == "127.0.0.1:9100"


@pytest.mark.parametrize("service", SERVICES)
def test_only_who_asks_providers_is_told_where_their_keys_are(service: str) -> None:
    environment = service_environment(service, LAYOUT, CREDENTIALS, {})
    keys = environment.get("DOZEN_PROVIDER_KEYS_DIRECTORY")
    assert keys == ("/srv/dozen/provider-keys" if service in ("chat", "completion") else None)


@pytest.mark.parametrize(
    ("caller", "callee"),
    [("gateway", "credits"), ("jobs", "gateway"), ("chat", "embeddings"), ("completion", "embeddings")],
)
def test_a_caller_has_the_address_of_its_callee_and_a_token_that_it_trusts(caller: str, callee: str) -> None:
    environment = service_environment(caller, LAYOUT, CREDENTIALS, {})
    assert environment[f"DOZEN_{callee.upper()}_ADDRESS"] == LAYOUT.grpc_address(callee)
    trusted = service_environment(callee, LAYOUT, CREDENTIALS, {})["DOZEN_GRPC_KEY"]
    token = environment[f"DOZEN_{callee.upper()}_TOKEN"]
    assert verify_caller(bytes.fromhex(trusted), token) == caller


@pytest.mark.parametrize("value", ["plain", "with space", "it's", "$HOME", "a=b"])
def test_a_shell_reads_the_env_file(tmp_path: Path, value: str) -> None:
    path = tmp_path / "env"
    write_env(path, {"FIRST": value, "SECOND": "2"})
    script = f"set -a; . {shlex.quote(str(path))}; printenv FIRST"
    assert subprocess.check_output(["sh", "-c", script], text=True) == f"{value}\n"
    assert read_env(path) == {"FIRST": value, "SECOND": "2"}
