"""Databases for tests: a fresh one for each, cloned from one that the service's migrations made."""

import itertools
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from dozen_chassis.migrate import migrate, migrations_directory
from dozen_local.postgres import PostgresServer


class TestDatabases:
    """Hands out migrated databases of one PostgreSQL server."""

    __test__ = False  # or pytest takes it for tests

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._passwords: dict[str, str] = {}
        self._numbers = itertools.count(1)

    @asynccontextmanager
    async def fresh(self, package: str | None) -> AsyncIterator[str]:
        """Give the connection string of a database with all migrations of a service; drop it afterwards.

        The service's own role connects, so a test has just the rights the service has. Without a package
        the database holds only what the chassis brings.
        """
        template = package or "chassis"
        if template not in self._passwords:
            await self._make_template(template, package)
        clone = f"{template}_{next(self._numbers)}"
        await self._execute(
            f'create database "{clone}" template "{template}" owner "{template}" strategy file_copy'
        )
        try:
            yield self.server.dsn(template, self._passwords[template], clone)
        finally:
            await self._execute(f'drop database "{clone}" with (force)')

    async def _make_template(self, name: str, package: str | None) -> None:
        password = secrets.token_urlsafe(16)
        await self.server.create_databases({name: password})
        await migrate(
            self.server.dsn(name, password), migrations_directory(package) if package else Path("none")
        )
        self._passwords[name] = password

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.server.superuser_dsn)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()
