"""The repository, and the fake that stands in for it."""

import asyncio
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest

from dozen_chassis.postgres import Database
from dozen_events.domain import NewEvent
from dozen_events.repository import EventsRepository
from dozen_events.service import Log

pytestmark = pytest.mark.integration


@pytest.fixture(params=["fake", "postgres"])
def log(request: pytest.FixtureRequest) -> Log:
    if request.param == "fake":
        fake: Log = request.getfixturevalue("fake_log")
        return fake
    database: Database = request.getfixturevalue("database")
    return EventsRepository(database)


async def test_an_event_is_appended_once_to_the_log_of_its_account(log: Log, an_event: NewEvent) -> None:
    assert await log.last_sequence("acme") == 0
    appended = await log.append(an_event)
    assert appended is not None
    assert asdict(appended) == {**asdict(an_event), "sequence": appended.sequence}
    assert await log.append(replace(an_event, data={})) is None
    assert await log.append(replace(an_event, account_id="other"))
    assert await log.find("acme", an_event.id) == appended
    assert await log.find("third", an_event.id) is None
    assert await log.last_sequence("acme") == appended.sequence


async def test_pages_go_by_sequence(log: Log, an_event: NewEvent) -> None:
    sequences = []
    for number in range(4):
        type = "file.stored" if number % 2 else "job.failed"
        appended = await log.append(replace(an_event, id=f"evt_{number}", type=type))
        assert appended is not None
        sequences.append(appended.sequence)
    await log.append(replace(an_event, account_id="other"))

    async def page(type: str | None, after: int | None, ascending: bool) -> list[str]:
        found = await log.page("acme", type=type, after=after, ascending=ascending, limit=2)
        return [event.id for event in found]

    assert await page(None, None, False) == ["evt_3", "evt_2"]
    assert await page(None, sequences[2], False) == ["evt_1", "evt_0"]
    assert await page(None, 0, True) == ["evt_0", "evt_1"]
    assert await page(None, sequences[1], True) == ["evt_2", "evt_3"]
    assert await page("file.stored", sequences[1], True) == ["evt_3"]


async def test_old_events_are_forgotten_in_batches(log: Log, an_event: NewEvent) -> None:
    for number in range(3):
        await log.append(replace(an_event, id=f"evt_{number}"))
    await log.append(replace(an_event, id="evt_new", created_at=datetime.now(UTC)))
    assert await log.forget(timedelta(days=1), 2) == 2
    assert await log.forget(timedelta(days=1), 2) == 1
    assert await log.forget(timedelta(days=1), 2) == 0
    assert await log.find("acme", "evt_new")


async def test_who_reads_behind_a_sequence_misses_no_event_that_commits_later(
    database: Database, an_event: NewEvent
) -> None:
    log = EventsRepository(database)
    blocked = "select count(*) from pg_locks where locktype = 'advisory' and not granted"
    async with asyncio.timeout(10):
        async with log.transaction() as tx:
            first = await tx.append(an_event)
            later = asyncio.create_task(log.append(replace(an_event, id="evt_2")))
            other = await log.append(replace(an_event, id="evt_2", account_id="other"))
            while not (await database.pool.fetchval(blocked) or later.done()):
                pass
            assert await log.page("acme", type=None, after=0, ascending=True, limit=9) == []
        second = await later
    assert first is not None
    assert second is not None
    assert other is not None, "an account does not wait for another one"
    assert await log.page("acme", type=None, after=0, ascending=True, limit=9) == [first, second]


async def test_replicas_hear_of_each_others_events(database: Database, an_event: NewEvent) -> None:
    heard = EventsRepository(database).appended()
    async with asyncio.timeout(10):
        assert await anext(heard) is None
        other = await Database.open(database._dsn)
        await EventsRepository(other).append(an_event)
        await other.close()
        assert await anext(heard) == "acme"
        await heard.aclose()  # type: ignore[attr-defined]  # a generator
