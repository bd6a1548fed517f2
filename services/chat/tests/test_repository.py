"""The log of requests, in memory and in PostgreSQL."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.jobs.v1.jobs_events_pb2 import TaskReported
from dozen_chassis.admission import Admission
from dozen_chassis.postgres import Database
from dozen_chat.repository.requests import RequestRepository
from dozen_chat.service.log import Entry, Requests, write
from dozen_inference.outcome import Outcome


@pytest.fixture
def outcome(admission: Admission) -> Outcome:
    """A streamed answer of three tokens."""
    return Outcome(
        admission=admission,
        stream=True,
        status=200,
        ending="stop",
        seconds=1.2345,
        first_byte_seconds=0.5,
        quantities={"input_tokens": 5, "cached_input_tokens": 2, "output_tokens": 3},
        estimated=False,
        answer=b"",
        error=None,
    )


async def test_an_event_is_handled_once(requests: Requests) -> None:
    assert not await requests.is_handled("one")
    assert await requests.first_delivery("one")
    assert not await requests.first_delivery("one")
    assert await requests.is_handled("one")
    assert not await requests.is_handled("two")


async def test_what_is_old_enough_is_forgotten_in_batches(requests: Any, outcome: Outcome) -> None:
    await requests.record([outcome] * 3)
    assert await requests.forget(timedelta(hours=1), 10) == 0
    assert await requests.forget(timedelta(), 2) == 2
    assert await requests.forget(timedelta(), 2) == 1
    assert await requests.forget(timedelta(), 2) == 0


@pytest.mark.integration
async def test_requests_are_logged_and_what_they_used_is_one_event(
    database: Database, outcome: Outcome
) -> None:
    refused = replace(outcome, status=400, ending="bad", quantities={}, first_byte_seconds=None)
    entries = [Entry(one.usage_record(), one) for one in (outcome, refused)]
    repository, history = RequestRepository(database), list[Outcome]()
    await write(repository, [*entries, Entry(refused.usage_record())], history.append)
    await repository.record(history)
    rows = await database.pool.fetch("select * from requests order by id")
    assert [dict(row) | {"id": 0, "created_at": None} for row in rows] == [
        {
            "id": 0,
            "request_id": "req_1",
            "account_id": "acme",
            "key_id": "key1",
            "model": "smollm2-135m-instruct",
            "deployment_id": "smollm2-chat",
            "stream": True,
            "status": 200,
            "ending": "stop",
            "input_tokens": 7,
            "output_tokens": 3,
            "milliseconds": 1234,
            "first_byte_milliseconds": 500,
            "created_at": None,
        },
        {
            "id": 0,
            "request_id": "req_1",
            "account_id": "acme",
            "key_id": "key1",
            "model": "smollm2-135m-instruct",
            "deployment_id": "smollm2-chat",
            "stream": True,
            "status": 400,
            "ending": "bad",
            "input_tokens": 0,
            "output_tokens": 0,
            "milliseconds": 1234,
            "first_byte_milliseconds": None,
            "created_at": None,
        },
    ]
    (payload,) = [row["payload"] for row in await database.pool.fetch("select payload from outbox")]
    record, *unused = UsageReported.FromString(payload).records
    assert (record.request_id, record.price_id, record.deployment_id) == ("req_1", "price-1", "smollm2-chat")
    assert dict(record.quantities) == outcome.quantities
    assert [dict(record.quantities) for record in unused] == [{}, {}]


@pytest.mark.integration
async def test_what_a_task_came_to_is_written_once(database: Database, outcome: Outcome) -> None:
    report = TaskReported(task_id="job_1")
    repository, history = RequestRepository(database), list[Outcome]()
    for delivery in ("one", "one", "two"):
        entry = Entry(outcome.usage_record(), outcome, report, delivery)
        await write(repository, [entry], history.append)
    await write(repository, [Entry(None, outcome)], history.append)  # it will be tried again
    subjects = [row["subject"] for row in await database.pool.fetch("select subject from outbox")]
    assert sorted(subjects) == ["dozen.credits.v1.UsageReported"] * 2 + ["dozen.jobs.v1.TaskReported"] * 2
    assert history == [outcome] * 4
