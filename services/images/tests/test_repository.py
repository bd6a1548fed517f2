"""The SQL of the images service, on a real database."""

from datetime import UTC, datetime

import pytest

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen_chassis.admission import Admission
from dozen_chassis.postgres import Database
from dozen_images.domain import Analysis, Reading, TextLine
from dozen_images.repository import ImagesRepository
from dozen_images.service import Entry, write
from dozen_inference.usage import usage_record

pytestmark = pytest.mark.integration

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def analysis(request_id: str, number: int = 1) -> Analysis:
    reading = Reading(640, 480, [TextLine("Hello", 0.9, []), TextLine("world", 0.8, [])])
    return Analysis(f"imga_{request_id}_{number}", request_id, "acme", "pp-ocrv6", reading, NOW)


async def test_an_analysis_is_recorded_without_its_text(database: Database) -> None:
    assert await ImagesRepository(database).add(analysis("req_1"))
    (row,) = await database.pool.fetch("select * from analyses")
    assert dict(row) == {
        "id": "imga_req_1_1",
        "request_id": "req_1",
        "account_id": "acme",
        "model": "pp-ocrv6",
        "width": 640,
        "height": 480,
        "lines": 2,
        "created_at": NOW,
    }


async def test_what_is_written_together_is_one_event_and_each_request_is_in_it_once(
    database: Database, admission: Admission
) -> None:
    used, unused = usage_record(admission, {"images": 1}), usage_record(admission, {})
    again = [Entry(used, analysis("req_1", number)) for number in (1, 2)]
    await write(ImagesRepository(database), [*again, Entry(unused), Entry(used, analysis("req_2"))])
    await write(ImagesRepository(database), again)
    (payload,) = [row["payload"] for row in await database.pool.fetch("select payload from outbox")]
    records = UsageReported.FromString(payload).records
    assert [dict(record.quantities) for record in records] == [{"images": 1}, {}, {"images": 1}]
    assert await database.pool.fetchval("select count(*) from analyses") == 2


async def test_what_fails_leaves_neither_a_record_nor_an_event(database: Database) -> None:
    async def fail() -> None:
        async with ImagesRepository(database).transaction() as records:
            await records.add(analysis("req_1"))
            await records.emit(UsageReported())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await database.pool.fetchval("select count(*) from analyses") == 0
    assert await database.pool.fetchval("select count(*) from outbox") == 0
