"""Usage that was reported is sent again as it was, on a real database."""

from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta

import pytest

from dozen.credits.v1.credits_events_pb2 import UsageRecounted, UsageRecountRequested, UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.events import Delivery
from dozen_chassis.postgres import Database, Repository
from dozen_inference.replay import HANDLERS, UsageReplay

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC)
START, END = NOW - timedelta(minutes=10), NOW - timedelta(minutes=5)
TELL = HANDLERS[UsageRecountRequested]


@pytest.fixture
async def database(postgres_dsn: str) -> AsyncIterator[Database]:
    """The database of a service that keeps what it reports."""
    keeping = await Database.open(postgres_dsn, keeps=[UsageReported])
    yield keeping
    await keeping.close()


def record(name: str, finished_at: datetime = START) -> UsageRecord:
    made = UsageRecord(request_id=name, account_id="acme", quantities={"input_tokens": 3}, price_id="p")
    made.finished_at.FromDatetime(finished_at)
    return made


async def report(database: Database, records: Iterable[UsageRecord]) -> None:
    """Report, and let the events be lost on their way."""
    await Repository(database).emit(UsageReported(records=records))
    await database.pool.execute("delete from outbox")


async def ask(database: Database, event_id: str, reconciliation_id: str = "recon_1") -> None:
    request = UsageRecountRequested(reconciliation_id=reconciliation_id)
    request.start.FromDatetime(START)
    request.end.FromDatetime(END)
    await TELL(request, Delivery(event_id, 1, NOW), UsageReplay("chat", database))


async def told(database: Database) -> tuple[list[UsageReported], list[UsageRecounted]]:
    rows = await database.pool.fetch("select subject, payload from outbox order by id")
    payloads = [(row["subject"].rpartition(".")[2], row["payload"]) for row in rows]
    return (
        [UsageReported.FromString(payload) for subject, payload in payloads if subject == "UsageReported"],
        [UsageRecounted.FromString(payload) for subject, payload in payloads if subject == "UsageRecounted"],
    )


async def test_records_of_the_period_are_sent_as_they_were(database: Database) -> None:
    early, late = record("early", START - timedelta(microseconds=1)), record("late", END)
    await report(database, [early, record("first"), record("last", END - timedelta(microseconds=1))])
    await report(database, [late])
    await ask(database, "event1")
    (again,), (recounted,) = await told(database)
    assert list(again.records) == [record("first"), record("last", END - timedelta(microseconds=1))]
    assert (again.reconciliation_id, again.service) == ("recon_1", "chat")
    assert recounted == UsageRecounted(reconciliation_id="recon_1", service="chat", records=2)


async def test_a_service_that_reported_nothing_says_so(database: Database) -> None:
    await ask(database, "event1")
    assert await told(database) == (
        [],
        [UsageRecounted(reconciliation_id="recon_1", service="chat", records=0)],
    )


async def test_many_records_are_sent_in_several_events(database: Database) -> None:
    names = [f"req_{number:04}" for number in range(1201)]
    for start in range(0, len(names), 300):
        await report(database, map(record, names[start : start + 300]))
    await ask(database, "event1")
    again, (recounted,) = await told(database)
    assert [len(one.records) for one in again] == [500, 500, 201]
    assert sorted(one.request_id for event in again for one in event.records) == names
    assert recounted.records == 1201


async def test_a_request_is_answered_once_and_each_one_the_same(database: Database) -> None:
    await report(database, [record("req_1")])
    for _ in range(2):
        await ask(database, "event1")
    await ask(database, "event2", "recon_2")  # what was sent again is not sent again as well
    again, recounted = await told(database)
    assert [one.reconciliation_id for one in again] == ["recon_1", "recon_2"]
    assert [one.records for one in recounted] == [1, 1]
