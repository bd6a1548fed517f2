"""PostgreSQL: the pool of a service, and the base of its repositories."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Self, TypeVar

import asyncpg
from google.protobuf.message import Message

from dozen_chassis.errors import DependencyUnavailable, InternalError, ServiceError
from dozen_chassis.events import Envelope, subject

log = logging.getLogger(__name__)

_RECONNECT_SECONDS = 0.5
_SILENCE_SECONDS = 30.0

MERGE_SECONDS = 0.1
"""How long an event that may merge waits for others."""

_EMIT = "insert into outbox (event_id, subject, payload, headers) values ($1, $2, $3, $4)"
_EMIT_AND_KEEP = (
    f"with emitted as ({_EMIT} returning event_id, subject, payload, created_at)"
    " insert into kept_events (event_id, subject, payload, emitted_at) select * from emitted"
)

PASSING = (
    asyncpg.DeadlockDetectedError,
    asyncpg.SerializationError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,  # of a connection that was lost
    asyncpg.InternalClientError,  # the same, in the middle of something
    OSError,
)
"""What goes wrong with a database without having to do with what it was asked for."""
FAILURES = (*PASSING, asyncpg.PostgresError)
"""All that goes wrong with a database."""

Connection = asyncpg.Connection | asyncpg.pool.PoolConnectionProxy
Event = TypeVar("Event", bound=Message)


def as_service_error(problem: Exception) -> ServiceError:
    """Give what a caller hears of a problem; what has gone wrong here is logged."""
    if isinstance(problem, ServiceError):
        return problem
    log.error("unhandled error", exc_info=problem)
    return DependencyUnavailable() if isinstance(problem, PASSING) else InternalError()


class Database:
    """The connection pool of a service, and the signal that its outbox has something to relay."""

    def __init__(self, pool: asyncpg.Pool, dsn: str, keeps: Collection[type[Message]]) -> None:
        self.pool = pool
        self.keeps = {subject(event) for event in keeps}
        self._dsn = dsn
        self.outbox_filled = asyncio.Event()
        self._filling: asyncio.TimerHandle | None = None

    def relay(self, within: float = 0) -> None:
        """Have the outbox relayed, at once or within so many seconds."""
        if not within:
            self.outbox_filled.set()
        elif self._filling is None or self._filling.when() < asyncio.get_running_loop().time():
            self._filling = asyncio.get_running_loop().call_later(within, self.outbox_filled.set)

    @classmethod
    async def open(cls, dsn: str, *, max_connections: int = 8, keeps: Collection[type[Message]] = ()) -> Self:
        """Open the pool; connections are made when they are first needed."""
        pool = asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=max_connections,
            max_inactive_connection_lifetime=60,
            command_timeout=30,
            reset=_leave_as_it_is,
        )
        return cls(await pool, dsn, keeps)

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
            except FAILURES as error:
                log.warning("not listening to '%s': %r", channel, error)
            await asyncio.sleep(_RECONNECT_SECONDS)

    async def close(self) -> None:
        """Close all connections, waiting a moment for those in use."""
        try:
            async with asyncio.timeout(5):
                await self.pool.close()
        except TimeoutError:
            self.pool.terminate()


async def _leave_as_it_is(_: asyncpg.Connection) -> None:
    """Spare the question to the database after each use: nobody here changes anything of a session."""


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
                self._database.relay()

    async def emit(
        self, event: Message, *, subject_suffix: str = "", keep: bool = True, may_merge: bool = False
    ) -> None:
        """Put an event into the outbox, to be published once this transaction has committed.

        One of a type that the database keeps is kept as well, unless it only tells again what another told.
        One that `may_merge` has lists only; it is published a little later, and those that follow it
        become one with it.
        """
        envelope = Envelope.seal(event, subject_suffix, may_merge=may_merge)
        await self.db.execute(
            _EMIT_AND_KEEP if keep and subject(event) in self._database.keeps else _EMIT,
            envelope.id, envelope.subject, envelope.payload, envelope.headers_json(),
        )  # fmt: skip
        self.emitted = True
        if self._connection is None:
            self._database.relay(MERGE_SECONDS if may_merge else 0)

    async def kept(self, event: type[Event], start: datetime, end: datetime) -> AsyncIterator[Event]:
        """Give the kept events of a type that were emitted in [start, end), to read in a transaction."""
        assert self._connection is not None, "the events are read bit by bit, all as they are now"
        async for row in self._connection.cursor(
            "select payload from kept_events where emitted_at >= $2 and emitted_at < $3"
            " and (subject = $1 or starts_with(subject, $1 || '.')) order by emitted_at, event_id",
            subject(event), start, end,
        ):  # fmt: skip
            yield event.FromString(row["payload"])

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
        return await self._forget("processed_events", "processed_at", older_than, limit)

    async def forget_kept(self, older_than: timedelta, limit: int = 1_000) -> int:
        """Drop kept events that are too old to be told again; return how many."""
        return await self._forget("kept_events", "emitted_at", older_than, limit)

    async def _forget(self, table: str, time: str, older_than: timedelta, limit: int) -> int:
        status: str = await self.db.execute(
            f"delete from {table} where event_id in ("
            f"  select event_id from {table} where {time} < now() - $1::interval limit $2)",
            older_than, limit,
        )  # fmt: skip
        return int(status.split()[-1])
