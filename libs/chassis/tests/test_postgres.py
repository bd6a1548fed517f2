"""The base of repositories, on a real database."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from dozen.credits.v1.credits_events_pb2 import UsageRated, UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis import postgres
from dozen_chassis.postgres import Database, Repository
from dozen_testing.conditions import eventually

pytestmark = pytest.mark.integration

LONG_AGO, FAR_AHEAD = datetime(2000, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)


class Names(Repository):
    """A table of names."""

    async def add(self, name: str) -> None:
        """Keep a name."""
        await self.db.execute("insert into names values ($1)", name)

    async def all(self) -> list[str]:
        """Give all names."""
        return [row["name"] for row in await self.db.fetch("select name from names order by name")]


@pytest.fixture
async def names(database: Database) -> Names:
    await database.pool.execute("create table names (name text primary key)")
    return Names(database)


async def waiting(database: Database) -> int:
    return int(await database.pool.fetchval("select count(*) from outbox"))


async def test_a_transaction_is_all_or_nothing(names: Names) -> None:
    async with names.transaction() as tx:
        await tx.add("kept")
        assert await names.all() == []
    with suppress(ZeroDivisionError):
        async with names.transaction() as tx:
            await tx.add("lost")
            raise ZeroDivisionError
    assert await names.all() == ["kept"]


async def test_a_transaction_in_a_transaction_is_a_savepoint(names: Names) -> None:
    async with names.transaction() as tx:
        await tx.add("outer")
        with suppress(asyncpg.UniqueViolationError):
            async with tx.transaction() as inner:
                await inner.add("inner")
                await inner.add("outer")
        await tx.add("after")
    assert await names.all() == ["after", "outer"]


async def test_an_event_waits_for_the_commit(names: Names, database: Database) -> None:
    async with names.transaction() as tx:
        await tx.emit(UsageReported())
        assert not database.outbox_filled.is_set()
        assert await waiting(database) == 0
    assert database.outbox_filled.is_set()
    assert await waiting(database) == 1


async def test_an_event_goes_with_what_is_rolled_back(names: Names, database: Database) -> None:
    with suppress(ZeroDivisionError):
        async with names.transaction() as tx:
            await tx.emit(UsageReported())
            raise ZeroDivisionError
    assert not database.outbox_filled.is_set()
    async with names.transaction() as tx:
        with suppress(ZeroDivisionError):
            async with tx.transaction() as inner:
                await inner.emit(UsageReported())
                raise ZeroDivisionError
    assert await waiting(database) == 0


async def test_an_event_without_a_transaction_is_one_of_its_own(names: Names, database: Database) -> None:
    await names.emit(UsageReported(), subject_suffix=".standard")
    assert database.outbox_filled.is_set()
    (row,) = await database.pool.fetch("select subject from outbox")
    assert row["subject"] == "dozen.credits.v1.UsageReported.standard"


async def test_a_delivery_is_first_once(names: Names) -> None:
    assert await names.first_delivery("event-1")
    assert not await names.first_delivery("event-1")
    assert await names.first_delivery("event-2")


async def test_a_delivery_whose_effect_failed_is_first_again(names: Names) -> None:
    with suppress(ZeroDivisionError):
        async with names.transaction() as tx:
            assert await tx.first_delivery("event-1")
            raise ZeroDivisionError
    assert await names.first_delivery("event-1")


async def test_of_two_deliveries_side_by_side_one_is_first(names: Names) -> None:
    async def deliver() -> bool:
        async with names.transaction() as tx:
            if first := await tx.first_delivery("event-1"):
                await tx.add("effect")  # would be refused the second time
            return first

    assert sorted(await asyncio.gather(*(deliver() for _ in range(5)))) == [False] * 4 + [True]


async def test_old_deliveries_are_forgotten(names: Names, database: Database) -> None:
    await database.pool.execute(
        "insert into processed_events (event_id, processed_at)"
        " select 'old-' || n, now() - interval '3 days' from generate_series(1, 5) n"
    )
    await names.first_delivery("new")
    age = timedelta(days=2)
    assert [await names.forget_deliveries(age, limit=3) for _ in range(3)] == [3, 2, 0]
    assert not await names.first_delivery("new")


@pytest.fixture
async def keeping(postgres_dsn: str) -> AsyncIterator[Database]:
    """The same database, which keeps what is reported."""
    keeping = await Database.open(postgres_dsn, keeps=[UsageReported])
    yield keeping
    await keeping.close()


def reported(name: str) -> UsageReported:
    return UsageReported(records=[UsageRecord(request_id=name)])


async def kept(database: Database, start: datetime = LONG_AGO, end: datetime = FAR_AHEAD) -> list[str]:
    async with Repository(database).transaction() as tx:
        return [event.records[0].request_id async for event in tx.kept(UsageReported, start, end)]


async def test_events_of_chosen_types_are_kept_when_they_are_emitted(
    database: Database, keeping: Database
) -> None:
    names = [str(number) for number in range(120)]  # more than a cursor reads at once
    for name in names:
        await Repository(keeping).emit(reported(name))
    await Repository(keeping).emit(reported("suffixed"), subject_suffix=".standard")
    await Repository(keeping).emit(reported("again"), keep=False)
    await Repository(keeping).emit(UsageRated())
    await Repository(database).emit(reported("elsewhere"))
    assert await waiting(database) == len(names) + 4
    assert await kept(database) == [*names, "suffixed"]
    rows = await database.pool.fetch(
        "select * from kept_events join outbox using (event_id) where emitted_at = created_at"
    )
    assert len(rows) == len(names) + 1


async def test_kept_events_go_with_what_is_rolled_back(keeping: Database) -> None:
    with suppress(ZeroDivisionError):
        async with Repository(keeping).transaction() as tx:
            await tx.emit(reported("a"))
            raise ZeroDivisionError
    assert await kept(keeping) == []


async def test_events_of_a_period_are_read_while_others_are_emitted(keeping: Database) -> None:
    await keeping.pool.execute(
        "insert into kept_events select gen_random_uuid(), 'dozen.credits.v1.UsageReported', $1,"
        " timestamptz '2026-10-05T12:00:00Z' + n * interval '1 hour' from generate_series(0, 3) n",
        reported("old").SerializeToString(),
    )
    noon = datetime(2026, 10, 5, 12, tzinfo=UTC)
    assert len(await kept(keeping, noon, noon + timedelta(hours=3))) == 3
    async with Repository(keeping).transaction() as tx:
        async for event in tx.kept(UsageReported, LONG_AGO, FAR_AHEAD):
            await tx.emit(event)
    assert len(await kept(keeping)) == 8


async def test_old_kept_events_are_forgotten(keeping: Database) -> None:
    await keeping.pool.execute(
        "insert into kept_events select gen_random_uuid(), 'any', '', now() - interval '36 days'"
        " from generate_series(1, 5)"
    )
    await Repository(keeping).emit(reported("new"))
    age = timedelta(days=35)
    assert [await Repository(keeping).forget_kept(age, limit=3) for _ in range(3)] == [3, 2, 0]
    assert await kept(keeping) == ["new"]


@pytest.fixture
async def heard(database: Database) -> AsyncIterator[AsyncIterator[str | None]]:
    async with aclosing(database.listen("names")) as payloads, asyncio.timeout(30):
        assert await anext(payloads) is None
        yield payloads


async def test_who_listens_hears_what_is_committed(names: Names, heard: AsyncIterator[str | None]) -> None:
    with suppress(ZeroDivisionError):
        async with names.transaction() as tx:
            await tx.notify("names", "lost")
            raise ZeroDivisionError
    async with names.transaction() as tx:
        await tx.notify("names", "first")
    await names.notify("other", "elsewhere")
    await names.notify("names", "second")
    assert [await anext(heard), await anext(heard)] == ["first", "second"]


async def test_who_lost_the_connection_is_told_to_read_anew(
    names: Names, database: Database, heard: AsyncIterator[str | None]
) -> None:
    await names.notify("names", "before")
    assert await anext(heard) == "before"
    assert await database.pool.fetchval(
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where query ilike 'listen%'"
    )
    assert await anext(heard) is None
    await names.notify("names", "after")
    assert await anext(heard) == "after"


async def test_silence_is_told_from_a_lost_connection(
    names: Names, database: Database, heard: AsyncIterator[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_SILENCE_SECONDS", 0.01)
    hearing = asyncio.ensure_future(anext(heard))
    listener = "select exists (select from pg_stat_activity where query = 'select' and state = 'idle')"
    await eventually(lambda: database.pool.fetchval(listener))
    await names.notify("names", "at last")
    assert await asyncio.wait_for(hearing, 20) == "at last"


async def test_a_database_that_is_down_is_not_ready() -> None:
    database = await Database.open("postgresql://nobody:secret@127.0.0.1:9/nothing")
    with pytest.raises(OSError, match="Connect call failed"):
        await database.ping()
    await database.close()
