"""What accounts are told of tasks, files and credits."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from dozen.credits.v1.credits_events_pb2 import BalanceExhausted, BalanceLow
from dozen.credits.v1.credits_pb2 import Balance
from dozen.jobs.v1.jobs_events_pb2 import TaskFinished
from dozen.jobs.v1.jobs_pb2 import TaskError, TaskState
from dozen.storage.v1.storage_events_pb2 import FileDeleted, FileStored
from dozen.storage.v1.storage_pb2 import File
from dozen_chassis.events import Delivery
from dozen_events.domain import Limits
from dozen_events.errors import InvalidEvent
from dozen_events.handlers import HANDLERS
from dozen_events.service import EventsService

DELIVERY = Delivery("b0d2c6a4-6c26-4b67-9d3c-8b8a2f0f3c11", 1, datetime(2025, 1, 1, tzinfo=UTC))
FILE = File(
    id="file-1",
    account_id="acme",
    filename="cats.txt",
    purpose="batch",
    bytes=4,
    created_at=Timestamp(seconds=1735689600),
)


@pytest.fixture
def service(fake_log: Any) -> EventsService:
    return EventsService(fake_log, Limits(streams=1, account_streams=1), asyncio.Event())


@pytest.mark.parametrize(
    ("state", "type", "status"),
    [
        (TaskState.TASK_STATE_SUCCEEDED, "job.completed", "succeeded"),
        (TaskState.TASK_STATE_FAILED, "job.failed", "failed"),
        (TaskState.TASK_STATE_CANCELLED, "job.cancelled", "cancelled"),
    ],
)
async def test_the_end_of_a_task_is_told_once(
    service: EventsService, fake_log: Any, state: TaskState.ValueType, type: str, status: str
) -> None:
    finished = TaskFinished(task_id="job_1", account_id="acme", type="chat.completions", state=state)
    for _ in range(2):
        await HANDLERS[TaskFinished](finished, DELIVERY, service)
    (event,) = fake_log.events
    assert (event.account_id, event.type, event.created_at) == ("acme", type, DELIVERY.published_at)
    assert event.id == "evt_b0d2c6a46c264b679d3c8b8a2f0f3c11"
    assert event.data == {
        "id": "job_1",
        "object": "job",
        "status": status,
        "task_type": "chat.completions",
        "error": None,
    }


async def test_why_a_task_failed_is_told_briefly(service: EventsService, fake_log: Any) -> None:
    finished = TaskFinished(
        task_id="job_1",
        account_id="acme",
        type="chat.completions",
        state=TaskState.TASK_STATE_FAILED,
        error=TaskError(type="server_error", message="\0bad" + "x" * 100_000),
    )
    await HANDLERS[TaskFinished](finished, DELIVERY, service)
    error = fake_log.events[0].data["error"]
    assert (error["type"], error["code"], error["param"]) == ("server_error", None, None)
    assert error["message"] == "bad" + "x" * 1997


async def test_a_task_that_has_not_finished_is_not_told(service: EventsService, fake_log: Any) -> None:
    running = TaskFinished(task_id="job_1", account_id="acme", state=TaskState.TASK_STATE_RUNNING)
    with pytest.raises(InvalidEvent):
        await HANDLERS[TaskFinished](running, DELIVERY, service)
    assert not fake_log.events


async def test_files_that_come_and_go_are_told(service: EventsService, fake_log: Any) -> None:
    await HANDLERS[FileStored](FileStored(file=FILE), DELIVERY, service)
    gone = Delivery("another", 1, DELIVERY.published_at)
    await HANDLERS[FileDeleted](FileDeleted(file=FILE), gone, service)
    stored, deleted = fake_log.events
    assert (stored.type, deleted.type) == ("file.stored", "file.deleted")
    assert stored.data == {
        "id": "file-1",
        "object": "file",
        "bytes": 4,
        "created_at": 1735689600,
        "filename": "cats.txt",
        "purpose": "batch",
    }
    assert deleted.data == {"id": "file-1", "object": "file", "deleted": True}


async def test_credits_that_run_out_are_told_as_the_api_shows_them(
    service: EventsService, fake_log: Any
) -> None:
    low = Balance(account_id="acme", available_nano_credits=20, leased_nano_credits=5, version=7)
    for _ in range(2):
        await HANDLERS[BalanceLow](BalanceLow(balance=low, limit_nano_credits=50), DELIVERY, service)
    later = Delivery("another", 1, DELIVERY.published_at)
    nothing = Balance(account_id="acme", version=8)
    await HANDLERS[BalanceExhausted](BalanceExhausted(balance=nothing), later, service)
    warned, ended = fake_log.events
    assert (warned.account_id, warned.type) == ("acme", "credits.low")
    assert warned.data == {
        "object": "credits",
        "account_id": "acme",
        "available_nano_credits": 25,
        "limit_nano_credits": 50,
    }
    assert (ended.account_id, ended.type) == ("acme", "credits.exhausted")
    assert ended.data == {"object": "credits", "account_id": "acme", "available_nano_credits": 0}
