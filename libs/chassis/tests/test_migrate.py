"""Migrations on a real database."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from dozen_chassis.migrate import MigrationError, migrate, migrations_directory

pytestmark = pytest.mark.integration


@pytest.fixture
async def connection(postgres_dsn: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(postgres_dsn)
    yield connection
    await connection.close()


def write(directory: Path, **files: str) -> None:
    for name, sql in files.items():
        (directory / f"{name.removeprefix('m')}.sql").write_text(sql)


async def tables(connection: asyncpg.Connection) -> set[str]:
    rows = await connection.fetch("select tablename from pg_tables where schemaname = 'public'")
    ours = {"outbox", "kept_events", "processed_events", "dead_letters", "migrations"}
    return {row["tablename"] for row in rows} - ours


async def test_files_are_applied_once_in_the_order_of_their_numbers(
    postgres_dsn: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    write(
        tmp_path,
        m0010_pre_third="insert into numbers values (3)",
        m0002_post_second="insert into numbers values (2)",
        m0001_pre_first="create table numbers (number integer)",
    )
    applied = ["0001_pre_first.sql", "0002_post_second.sql", "0010_pre_third.sql"]
    assert await migrate(postgres_dsn, tmp_path) == applied
    assert await migrate(postgres_dsn, tmp_path) == []
    assert [row["number"] for row in await connection.fetch("select number from numbers")] == [2, 3]


async def test_the_new_code_is_prepared_for_before_the_old_is_gone(
    postgres_dsn: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    write(
        tmp_path,
        m0001_pre_create="create table one (id integer)",
        m0002_post_drop="drop table one",
        m0003_pre_create="create table two (id integer)",
    )
    assert await migrate(postgres_dsn, tmp_path, "pre") == ["0001_pre_create.sql", "0003_pre_create.sql"]
    assert await tables(connection) == {"one", "two"}
    assert await migrate(postgres_dsn, tmp_path, "post") == ["0002_post_drop.sql"]
    assert await tables(connection) == {"two"}


async def test_a_file_that_was_changed_afterwards_is_refused(postgres_dsn: str, tmp_path: Path) -> None:
    write(tmp_path, m0001_pre_one="create table one (id integer)")
    await migrate(postgres_dsn, tmp_path)
    write(tmp_path, m0001_pre_one="create table one (id bigint)")
    with pytest.raises(MigrationError, match="was changed after"):
        await migrate(postgres_dsn, tmp_path)


async def test_a_file_that_fails_leaves_nothing_and_is_tried_again(
    postgres_dsn: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    write(
        tmp_path,
        m0001_pre_good="create table good (id integer)",
        m0002_pre_bad="create table half (id integer); select 1 / 0",
        m0003_pre_later="create table later (id integer)",
    )
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(postgres_dsn, tmp_path)
    assert await tables(connection) == {"good"}
    write(tmp_path, m0002_pre_bad="create table whole (id integer)")
    assert await migrate(postgres_dsn, tmp_path) == ["0002_pre_bad.sql", "0003_pre_later.sql"]
    assert await tables(connection) == {"good", "whole", "later"}


async def test_two_runners_at_once_apply_each_file_once(
    postgres_dsn: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    files = {f"m{number:04}_pre_insert": f"insert into numbers values ({number})" for number in range(2, 12)}
    write(tmp_path, m0001_pre_create="create table numbers (number integer)", **files)
    applied = await asyncio.gather(*(migrate(postgres_dsn, tmp_path) for _ in range(3)))
    assert sorted(map(len, applied)) == [0, 0, 11]
    assert await connection.fetchval("select count(*) from numbers") == 10


async def test_a_file_can_do_without_a_transaction(
    postgres_dsn: str, connection: asyncpg.Connection, tmp_path: Path
) -> None:
    write(
        tmp_path,
        m0001_pre_create="create table one (id integer)",
        m0002_pre_index="-- no transaction\ncreate index concurrently one_id on one (id)",
    )
    await migrate(postgres_dsn, tmp_path)
    assert await connection.fetchval("select indisvalid from pg_index where indexrelid = 'one_id'::regclass")


@pytest.mark.parametrize("name", ["m1_pre_short", "m0001_sometime_what", "m0001_pre_UPPER"])
async def test_a_file_by_another_name_stops_everything(
    postgres_dsn: str, connection: asyncpg.Connection, tmp_path: Path, name: str
) -> None:
    write(tmp_path, m0000_pre_first="create table first (id integer)", **{name: "select 1"})
    with pytest.raises(MigrationError, match="a migration is named"):
        await migrate(postgres_dsn, tmp_path)
    assert await tables(connection) == set()


def test_the_migrations_of_a_service_are_found_inside_it_or_beside_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "src" / "dozen_sample_of_migrations"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "src"))
    assert migrations_directory(package.name) == tmp_path / "migrations"
    (package / "migrations").mkdir()
    assert migrations_directory(package.name) == package / "migrations"
    with pytest.raises(MigrationError):
        migrations_directory("dozen_without_a_package")
