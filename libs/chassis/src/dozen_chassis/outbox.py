"""The outbox relay: what was committed is published, at least once and in order."""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from prometheus_client import Counter, Gauge

from dozen_chassis.events import Envelope
from dozen_chassis.postgres import FAILURES, Database

log = logging.getLogger(__name__)

RELAYED = Counter("dozen_outbox_relayed_messages", "Outbox messages acknowledged by JetStream.")
WAITING = Gauge("dozen_outbox_waiting_messages", "Outbox messages seen waiting at the last look.")

Record = TypeVar("Record")

POLL_SECONDS = 1.0
GATHER_SECONDS = 0.01
"""What is committed within this time shares the trips to the database."""
BATCH = 200
MOST_MERGED_BYTES = 256 * 1024
"""Of events that have become one."""


class Publisher(Protocol):
    """Publishes an envelope and returns when it is stored; raises otherwise."""

    async def publish(self, envelope: Envelope) -> None:
        """Publish one envelope."""
        ...


class Relay:
    """Moves messages from the outbox table to JetStream until cancelled."""

    def __init__(self, database: Database, publisher: Publisher) -> None:
        self._database = database
        self._publisher = publisher

    async def run(self) -> None:
        """Relay as messages are committed; look every second as well, for those of a crashed process."""
        delay = POLL_SECONDS
        while True:
            try:
                async with asyncio.timeout(delay):
                    await self._database.outbox_filled.wait()
                await asyncio.sleep(GATHER_SECONDS)
            except TimeoutError:
                pass
            self._database.outbox_filled.clear()
            try:
                while await self.relay_batch() == BATCH:
                    pass
                delay = POLL_SECONDS
            except (*FAILURES, PublishFailed) as error:
                log.warning("outbox relay waits: %s", error)
                delay = min(delay * 2, 10)

    async def relay_batch(self) -> int:
        """Publish the oldest messages and delete them; return how many there were.

        The rows stay locked until they are deleted, so several replicas relay side by side without
        publishing a row twice. Killed in between, the rows are published again under the same id, which
        JetStream and the inbox of each consumer drop.
        """
        async with self._database.pool.acquire() as connection, connection.transaction():
            rows = await connection.fetch(
                "select id, event_id, subject, payload, headers from outbox order by id limit $1"
                " for update skip locked",
                BATCH,
            )
            WAITING.set(len(rows))
            if not rows:
                return 0
            envelopes = [
                Envelope(str(row["event_id"]), row["subject"], row["payload"], json.loads(row["headers"]))
                for row in rows
            ]
            groups = list(_merge(envelopes))
            published = [first.merged(others) if others else first for first, *others in groups]
            results = await asyncio.gather(*map(self._publisher.publish, published), return_exceptions=True)
            done = {
                one.id
                for group, result in zip(groups, results, strict=True)
                if result is None
                for one in group
            }
            sent = [row["id"] for row, one in zip(rows, envelopes, strict=True) if one.id in done]
            await connection.execute("delete from outbox where id = any($1::bigint[])", sent)
        RELAYED.inc(len(sent))
        failures = [result for result in results if result is not None]
        if failures:
            raise PublishFailed(f"{len(failures)} of {len(rows)} messages: {failures[0]!r}")
        return len(rows)


def _merge(envelopes: Sequence[Envelope]) -> Iterator[list[Envelope]]:
    """Group events that become one, in their order."""
    group: list[Envelope] = []
    size = 0
    for envelope in envelopes:
        if group and not (
            group[-1].may_merge(envelope) and size + len(envelope.payload) <= MOST_MERGED_BYTES
        ):
            yield group
            group, size = [], 0
        group.append(envelope)
        size += len(envelope.payload)
    if group:
        yield group


class PublishFailed(Exception):
    """Some messages of a batch were not acknowledged; they stay in the outbox."""


_FEW = 8
"""Commits of so few records follow each other at once: they cost little, and nobody waits in vain."""
_MOST_GROUPS = 20
"""So many groups of records may wait that nobody waits for; more are dropped."""


@dataclass
class _Waiting(Generic[Record]):
    record: Record
    done: asyncio.Future[None] | None
    """None where nobody waits."""


class GroupCommit(Generic[Record]):
    """Commits the records of many requests together.

    A record is durable when `put` returns. Records that arrive while a commit runs, or within
    `window` seconds where there were several in the last one, share the next: a request waits a few
    milliseconds and costs a fraction of a commit. A request that is alone does not wait.
    """

    def __init__(
        self,
        write: Callable[[list[Record]], Awaitable[None]],
        *,
        window: float = 0.002,
        most: int = 500,
    ) -> None:
        self._write = write
        self._window = window
        self._most = most
        self._waiting: list[_Waiting[Record]] = []
        self._arrived = asyncio.Event()
        self._last = 0
        """Records in the last commit."""

    async def put(self, record: Record) -> None:
        """Make a record durable, even where the caller is cancelled meanwhile; raise what `write` does."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(record, done))
        self._arrived.set()
        await asyncio.shield(done)

    def add(self, record: Record) -> None:
        """Have a record written that may be lost, such as where `write` fails; nobody waits for it."""
        if len(self._waiting) < self._most * _MOST_GROUPS:
            self._waiting.append(_Waiting(record, None))
            self._arrived.set()

    async def run(self) -> None:
        """Commit until cancelled; commit what waits even then."""
        committing: asyncio.Future[None] | None = None
        try:
            while True:
                await self._arrived.wait()
                is_awaited = any(waiting.done is not None for waiting in self._waiting)
                await asyncio.sleep(0 if is_awaited and self._last <= _FEW else self._window)
                committing = asyncio.ensure_future(self._commit())
                await asyncio.shield(committing)
        finally:
            if committing is not None:
                await committing
            while self._waiting:
                await self._commit()

    async def _commit(self) -> None:
        group, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        self._last = len(group)
        if not self._waiting:
            self._arrived.clear()
        try:
            await self._write([waiting.record for waiting in group])
        except Exception as error:  # whatever it is belongs to those who wait
            if any(waiting.done is None for waiting in group):
                log.warning("records that nobody waits for are lost: %r", error)
            for waiting in group:
                if waiting.done is not None and not waiting.done.done():
                    waiting.done.set_exception(error)
        else:
            for waiting in group:
                if waiting.done is not None and not waiting.done.done():
                    waiting.done.set_result(None)
