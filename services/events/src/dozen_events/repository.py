"""All SQL of the events service."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta

import asyncpg

from dozen_chassis.postgres import Repository
from dozen_events.domain import NewEvent, PublicEvent

CHANNEL = "events"
"""Where the account of each new event is notified."""

_COLUMNS = "sequence, id, account_id, type, created_at, data"


class EventsRepository(Repository):
    """The log of public events."""

    async def append(self, event: NewEvent) -> PublicEvent | None:
        """Append an event to its account's log; None where its id is there already."""
        async with self.transaction() as tx:
            # Sequences are handed out before they are committed. One at a time, an account's events become
            # visible in their order, and who reads behind a sequence misses none.
            await tx.db.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", event.account_id)
            row = await tx.db.fetchrow(
                "insert into events (id, account_id, type, created_at, data) values ($1, $2, $3, $4, $5)"
                f" on conflict (account_id, id) do nothing returning {_COLUMNS}",
                event.id, event.account_id, event.type, event.created_at, json.dumps(event.data),
            )  # fmt: skip
            if row is None:
                return None
            await tx.notify(CHANNEL, event.account_id)
            return _event(row)

    async def find(self, account_id: str, event_id: str) -> PublicEvent | None:
        """Find an event of an account."""
        row = await self.db.fetchrow(
            f"select {_COLUMNS} from events where account_id = $1 and id = $2", account_id, event_id
        )
        return _event(row) if row else None

    async def last_sequence(self, account_id: str) -> int:
        """Give the sequence of an account's newest event, 0 where there is none."""
        found: int = await self.db.fetchval(
            "select coalesce(max(sequence), 0) from events where account_id = $1", account_id
        )
        return found

    async def page(
        self, account_id: str, *, type: str | None, after: int | None, ascending: bool, limit: int
    ) -> list[PublicEvent]:
        """Give events of an account by their sequence, from behind `after`."""
        beyond, order = (">", "asc") if ascending else ("<", "desc")
        rows = await self.db.fetch(
            f"select {_COLUMNS} from events where account_id = $1 and ($2::text is null or type = $2)"
            f" and ($3::bigint is null or sequence {beyond} $3) order by sequence {order} limit $4",
            account_id, type, after, limit,
        )  # fmt: skip
        return [_event(row) for row in rows]

    async def forget(self, older_than: timedelta, limit: int) -> int:
        """Drop events that are so old; return how many."""
        status: str = await self.db.execute(
            "delete from events where sequence in ("
            "  select sequence from events where created_at < now() - $1::interval limit $2)",
            older_than, limit,
        )  # fmt: skip
        return int(status.split()[-1])

    async def appended(self) -> AsyncIterator[str | None]:
        """Give the account of each event that any replica appends; None where some may have been missed."""
        async for account_id in self._database.listen(CHANNEL):
            yield account_id


def _event(row: asyncpg.Record) -> PublicEvent:
    return PublicEvent(**{**row, "data": json.loads(row["data"])})
