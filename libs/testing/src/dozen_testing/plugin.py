"""The pytest plugin: fixtures with real servers, started when the first test asks for them."""

import re
import secrets
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from nats.aio.client import Client

from dozen_chassis.postgres import Database
from dozen_local.nats import NatsServer
from dozen_local.postgres import temporary_postgres
from dozen_testing.databases import TestDatabases
from dozen_testing.http import Signer
from dozen_testing.streams import observed_nats, observer


@pytest.fixture(scope="session")
def databases() -> Iterator[TestDatabases]:
    """A PostgreSQL server, and fresh databases of it for any service."""
    with temporary_postgres() as server:
        yield TestDatabases(server)


@pytest.fixture(scope="session")
def nats_server() -> Iterator[NatsServer]:
    """A NATS server with the users of all services; `nats_server.url("chat")` connects as one."""
    with observed_nats() as server:
        yield server


@pytest.fixture
def service_package(request: pytest.FixtureRequest) -> str | None:
    """The package of the service whose tests these are; none outside `services/`."""
    found = re.search(r"/services/([a-z]+)/tests/", request.path.as_posix())
    return f"dozen_{found[1]}" if found else None


@pytest.fixture
async def postgres_dsn(databases: TestDatabases, service_package: str | None) -> AsyncIterator[str]:
    """Connection string of a fresh database with the migrations of the service under test."""
    async with databases.fresh(service_package) as dsn:
        yield dsn


@pytest.fixture
async def database(postgres_dsn: str) -> AsyncIterator[Database]:
    """The chassis' pool on a fresh database of the service under test."""
    database = await Database.open(postgres_dsn)
    yield database
    await database.close()


@pytest.fixture
async def nats_client(nats_server: NatsServer) -> AsyncIterator[Client]:
    """A client that may say and hear everything; all streams are deleted after the test."""
    async with observer(nats_server) as client:
        yield client


@pytest.fixture
def base_settings(
    postgres_dsn: str,
    nats_server: NatsServer,
    nats_client: Client,  # deletes the streams that the service declares
    signer: Signer,
    service_package: str | None,
) -> dict[str, Any]:
    """Settings of a service in this process: free ports, real servers, the signer's admission key."""
    return {
        "http_host": "127.0.0.1",
        "http_port": 0,
        "grpc_host": "127.0.0.1",
        "grpc_port": 0,
        "grpc_key": secrets.token_hex(32),
        "admission_key": signer.key.hex(),
        "postgres_dsn": postgres_dsn,
        "nats_url": nats_server.url((service_package or "dozen_observer").removeprefix("dozen_")),
        "shutdown_seconds": 5,
        "embeddings_address": "127.0.0.1:9",  # where nobody is
        "embeddings_token": "",
    }


@pytest.fixture
def signer() -> Signer:
    """Admits requests as the gateway does; give the service `signer.key` as its admission key."""
    return Signer(secrets.token_bytes(32))
