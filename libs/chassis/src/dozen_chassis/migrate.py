"""Migrations: numbered plain SQL files, each applied once, in order."""

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path

import asyncpg

FILE_NAME = re.compile(r"(\d{4})_(pre|post)_[a-z0-9_]+\.sql\Z")
NO_TRANSACTION = "-- no transaction"
"""First line of a file whose statements cannot run in a transaction, such as CREATE INDEX CONCURRENTLY."""

_LOCK = 0x646F7A656E  # the same for all runners on one database, so that they wait for each other
_CHASSIS = Path(__file__).parent / "migrations"


class MigrationError(Exception):
    """The migrations on disk do not continue those applied to the database."""


def migrations_directory(package: str) -> Path:
    """Find the migrations of a service: inside its package, or beside `src` in a checkout."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MigrationError(f"There is no package {package}.")
    home = Path(spec.origin).parent
    inside = home / "migrations"
    return inside if inside.is_dir() else home.parent.parent / "migrations"


async def migrate(dsn: str, directory: Path, phase: str = "all") -> list[str]:
    """Apply what is new of the chassis' and the service's migrations; return the names applied.

    `phase` is `pre` (before the new code runs), `post` (after the old code has gone) or `all`.
    """
    files = sorted([*_CHASSIS.glob("*.sql"), *directory.glob("*.sql")], key=lambda file: file.name)
    for file in files:
        if not FILE_NAME.match(file.name):
            raise MigrationError(
                f"{file.name}: a migration is named NNNN_pre_what.sql or NNNN_post_what.sql."
            )
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("select pg_advisory_lock($1)", _LOCK)
        await connection.execute(
            "create table if not exists migrations ("
            " name text primary key, sha256 text not null, applied_at timestamptz not null default now())"
        )
        known = {
            row["name"]: row["sha256"]
            for row in await connection.fetch("select name, sha256 from migrations")
        }
        applied = []
        for file in files:
            sql = file.read_text()
            digest = hashlib.sha256(sql.encode()).hexdigest()
            if file.name in known:
                if known[file.name] != digest:
                    raise MigrationError(
                        f"{file.name} was changed after it was applied; add a new one instead."
                    )
            elif phase in ("all", file.name.split("_")[1]):
                await _apply(connection, file.name, sql, digest)
                applied.append(file.name)
        return applied
    finally:
        await connection.close()


async def _apply(connection: asyncpg.Connection, name: str, sql: str, digest: str) -> None:
    record = "insert into migrations (name, sha256) values ($1, $2)"
    if sql.startswith(NO_TRANSACTION):
        await connection.execute(sql)
        await connection.execute(record, name, digest)
        return
    async with connection.transaction():
        # Instead of waiting behind running queries, with all others queueing behind it, it gives up.
        await connection.execute("set local lock_timeout = '4s'; set local statement_timeout = '5s'")
        await connection.execute(sql)
        await connection.execute(record, name, digest)
