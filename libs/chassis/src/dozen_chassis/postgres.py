"""PostgreSQL: the pool of a service, and the base of its repositories."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Self

import asyncpg
from google.protobuf.message import Message

from dozen_chassis.events import Envelope

log = logging.getLogger(__name__)

_RECONNECT_SECONDS = 0.5
_SILENCE_SECONDS = 30.0

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy


class Database:
    """The connection pool of a service, and the signal that its outbox has something to relay."""

    def __init__(self, pool: asyncpg.Pool, dsn: str) -> None:
        self.pool = pool
        self._dsn = dsn
        self.outbox_filled = asyncio.Event()

    @classmethod
    async def open(cls, dsn: str, *, max_connections: int = 8) -> Self:
        """Open the pool; connections are made when they are first needed."""
        pool = asyncpg.create_pool(
            dsn, min_size=0, max_size=max_connections, max_inactive_connection_lifetime=60, command_timeout=30
        )
        return cls(await pool, dsn)

    async def ping(self) -> None:
        """Raise unless the database answers."""
        await self.pool.fetchval("select 1")

    async def listen(self, channel: str) -> AsyncGenerator[str | None, None]:
        """Give what is notified on a channel, by any replica, without end.

        None comes first, and again after each lost connection: notifications may have been missed, and
        what they tell of has to be read anew.
        """
        while True:
            try:
                connection = await asyncpg.connect(self._dsn, timeout=5)
                payloads: asyncio.Queue[str | None] = asyncio.Queue()
                connection.add_termination_listener(lambda _, lost=payloads: lost.put_nowait(None))
                try:
                    await connection.add_listener(channel, lambda *heard, q=payloads: q.put_nowait(heard[3]))
                    yield None
                    while (payload := await _heard(payloads, connection)) is not None:
                        yield payload
                finally:
                    connection.terminate()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("not listening to '%s': %r", channel, error)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def close(self) -> None:
        """Close all connections, waiting a moment for those in use."""
        try:
            async with asyncio.timeout(5):
                await self.pool.close()
        except TimeoutError:
            self.pool.terminate()


async def _heard(payloads: asyncio.Queue[str | None], connection: asyncpg.Connection) -> str | None:
    while True:
        try:
            async with asyncio.timeout(_SILENCE_SECONDS):
                return await payloads.get()
        except TimeoutError:  # nothing to tell, or a connection that was lost without a word
            await connection.execute("select", timeout=5)


class Repository:
    """Base of a service's repository: its queries run on the pool, or on one connection in a transaction."""

    def __init__(self, database: Database, connection: Connection | None = None) -> None:
        self._database = database
        self._connection = connection
        self.emitted = False

    @property
    def db(self) -> asyncpg.Pool | Connection:
        """Where to run a query."""
        return self._connection or self._database.pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Self]:
        """Give the same repository in one transaction; inside a transaction, a savepoint of it."""
        if self._connection is not None:
            async with self._connection.transaction():
                yield self
            return
        async with self._database.pool.acquire() as connection:
            async with connection.transaction():
                scoped = type(self)(self._database, connection)
                yield scoped
            if scoped.emitted:
                self._database.outbox_filled.set()

    async def emit(self, event: Message, *, subject_suffix: str = "") -> None:
        """Put an event into the outbox, to be published once this transaction has committed."""
        envelope = Envelope.seal(event, subject_suffix)
        await self.db.execute(
            "insert into outbox (event_id, subject, payload, headers) values ($1, $2, $3, $4)",
            envelope.id, envelope.subject, envelope.payload, envelope.headers_json(),
        )  # fmt: skip
        self.emitted = True
        if self._connection is None:
            self._database.outbox_filled.set()

    async def notify(self, channel: str, payload: str) -> None:
        """Tell all who listen to a channel, in every replica, once this transaction has committed."""
        await self.db.execute("select pg_notify($1, $2)", channel, payload)

    async def first_delivery(self, event_id: str) -> bool:
        """Record that an event is being handled; False where it already was, and nothing is to be done."""
        done = await self.db.fetchval(
            "insert into processed_events (event_id) values ($1) on conflict do nothing returning true",
            event_id,
        )
        return done is not None

    async def forget_deliveries(self, older_than: timedelta, limit: int = 10_000) -> int:
        """Drop records of deliveries that can no longer repeat; return how many."""
        status: str = await self.db.execute(
            "delete from processed_events where event_id in ("
            "  select event_id from processed_events where processed_at < now() - $1::interval limit $2)",
            older_than, limit,
        )  # fmt: skip
        return int(status.split()[-1])
