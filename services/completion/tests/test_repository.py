"""The log of requests in PostgreSQL."""

from dataclasses import replace
from datetime import timedelta

import pytest

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen_chassis.admission import Admission
from dozen_chassis.postgres import Database
from dozen_completion.service import Entry, write
from dozen_inference.outcome import Outcome
from dozen_inference.request_log import RequestLogRepository

pytestmark = pytest.mark.integration


@pytest.fixture
def outcome(admission: Admission) -> Outcome:
    """A whole answer of three tokens."""
    return Outcome(
        admission=admission,
        stream=False,
        status=200,
        ending="length",
        seconds=1.2345,
        first_byte_seconds=1.2,
        quantities={"input_tokens": 5, "cached_input_tokens": 2, "output_tokens": 3},
        estimated=True,
        answer=b"{}",
        error=None,
    )


async def test_requests_are_logged_and_what_they_used_is_one_event(
    database: Database, outcome: Outcome
) -> None:
    refused = replace(outcome, status=400, ending="bad", quantities={}, first_byte_seconds=None)
    entries = [Entry(one.usage_record(), one) for one in (outcome, refused)]
    repository, history = RequestLogRepository(database), list[Outcome]()
    await write(repository, [*entries, Entry(refused.usage_record())], history.append)
    await repository.record(history)
    rows = await database.pool.fetch(
        "select request_id, deployment_id, status, ending, input_tokens, output_tokens, milliseconds,"
        " first_byte_milliseconds from requests order by id"
    )
    assert [tuple(row) for row in rows] == [
        ("req_1", "smollm2-completion", 200, "length", 7, 3, 1234, 1200),
        ("req_1", "smollm2-completion", 400, "bad", 0, 0, 1234, None),
    ]
    (payload,) = [row["payload"] for row in await database.pool.fetch("select payload from outbox")]
    record, *unused = UsageReported.FromString(payload).records
    assert dict(record.quantities) == outcome.quantities
    assert record.estimated
    assert [dict(record.quantities) for record in unused] == [{}, {}]


async def test_nothing_is_reported_of_a_request_without_a_price(database: Database, outcome: Outcome) -> None:
    free = replace(outcome, admission=replace(outcome.admission, facts={}), quantities={})
    history: list[Outcome] = []
    await write(RequestLogRepository(database), [Entry(free.usage_record(), free)], history.append)
    assert await database.pool.fetchval("select count(*) from outbox") == 0
    assert history == [free]


async def test_what_is_old_enough_is_forgotten_in_batches(database: Database, outcome: Outcome) -> None:
    requests = RequestLogRepository(database)
    await requests.record([outcome] * 3)
    assert await requests.forget(timedelta(hours=1), 10) == 0
    assert [await requests.forget(timedelta(), 2) for _ in range(3)] == [2, 1, 0]
