"""PostgreSQL starts anywhere, keeps its data, and keeps the services apart."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from dozen_local.ports import free_port
from dozen_local.postgres import FAST_SETTINGS, PostgresServer, temporary_postgres

pytestmark = pytest.mark.integration

PASSWORDS = {"dozen_chat": "it's secret", "dozen_credits": "also secret"}


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """Run a server with two databases."""
    with temporary_postgres() as server:
        asyncio.run(server.create_databases(PASSWORDS))
        yield server


async def query(dsn: str, sql: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def test_a_role_owns_its_database(server: PostgresServer) -> None:
    dsn = server.dsn("dozen_chat", PASSWORDS["dozen_chat"])
    asyncio.run(query(dsn, "create table turns ()"))
    assert asyncio.run(query(dsn, "select current_database()")) == "dozen_chat"


@pytest.mark.parametrize("database", ["dozen_credits", "postgres", "template1"])
def test_a_role_cannot_enter_another_database(server: PostgresServer, database: str) -> None:
    dsn = server.dsn("dozen_chat", PASSWORDS["dozen_chat"], database)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
        asyncio.run(query(dsn, "select 1"))


def test_a_wrong_password_is_refused(server: PostgresServer) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        asyncio.run(query(server.dsn("dozen_chat", "guess"), "select 1"))


def test_databases_are_created_once_and_passwords_follow(server: PostgresServer) -> None:
    asyncio.run(server.create_databases({"dozen_jobs": "old"}))
    asyncio.run(query(server.dsn("dozen_jobs", "old"), "create table tasks ()"))
    asyncio.run(server.create_databases({"dozen_jobs": "new"}))
    assert asyncio.run(query(server.dsn("dozen_jobs", "new"), "select count(*) from tasks")) == 0


def test_data_survives_a_restart_in_a_folder_closed_to_others(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    server = PostgresServer(tmp_path / "postgres", free_port(), settings=FAST_SETTINGS)
    try:
        with server:
            asyncio.run(server.create_databases({"dozen_chat": "secret"}))
        with server:
            assert asyncio.run(query(server.dsn("dozen_chat", "secret"), "select 1")) == 1
    finally:
        server.remove()
    assert not (tmp_path / "postgres").exists()
