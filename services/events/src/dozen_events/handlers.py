"""What the service does with the events of others: it tells the accounts that they concern."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from dozen.credits.v1.credits_events_pb2 import BalanceExhausted, BalanceLow
from dozen.credits.v1.credits_pb2 import Balance
from dozen.jobs.v1.jobs_events_pb2 import TaskFinished
from dozen.jobs.v1.jobs_pb2 import TaskError, TaskState
from dozen.storage.v1.storage_events_pb2 import FileDeleted, FileStored
from dozen_chassis.events import Delivery
from dozen_events.domain import NewEvent, event_id
from dozen_events.errors import InvalidEvent
from dozen_events.service import EventsService

_MAX_MESSAGE = 2000
_OUTCOMES: Mapping[TaskState.ValueType, tuple[str, str]] = {
    TaskState.TASK_STATE_SUCCEEDED: ("job.completed", "succeeded"),
    TaskState.TASK_STATE_FAILED: ("job.failed", "failed"),
    TaskState.TASK_STATE_CANCELLED: ("job.cancelled", "cancelled"),
}


async def on_task_finished(event: TaskFinished, delivery: Delivery, events: EventsService) -> None:
    """Tell how a job ended."""
    if event.state not in _OUTCOMES:
        raise InvalidEvent(f"A finished task is not in the state {event.state}.")
    type, status = _OUTCOMES[event.state]
    await _tell(
        events,
        delivery,
        event.account_id,
        type,
        {
            "id": event.task_id,
            "object": "job",
            "status": status,
            "task_type": event.type,
            "error": _error(event.error) if event.HasField("error") else None,
        },
    )


async def on_file_stored(event: FileStored, delivery: Delivery, events: EventsService) -> None:
    """Tell that a file can be read."""
    file = event.file
    await _tell(
        events,
        delivery,
        file.account_id,
        "file.stored",
        {
            "id": file.id,
            "object": "file",
            "bytes": file.bytes,
            "created_at": file.created_at.seconds,
            "filename": file.filename,
            "purpose": file.purpose,
        },
    )


async def on_file_deleted(event: FileDeleted, delivery: Delivery, events: EventsService) -> None:
    """Tell that a file is gone."""
    file = event.file
    data = {"id": file.id, "object": "file", "deleted": True}
    await _tell(events, delivery, file.account_id, "file.deleted", data)


async def on_balance_low(event: BalanceLow, delivery: Delivery, events: EventsService) -> None:
    """Tell that an account has fallen below the limit at which it should be warned."""
    data = {**_credits(event.balance), "limit_nano_credits": event.limit_nano_credits}
    await _tell(events, delivery, event.balance.account_id, "credits.low", data)


async def on_balance_exhausted(event: BalanceExhausted, delivery: Delivery, events: EventsService) -> None:
    """Tell that an account has nothing left."""
    await _tell(events, delivery, event.balance.account_id, "credits.exhausted", _credits(event.balance))


def _credits(balance: Balance) -> dict[str, Any]:
    """Write a balance as `GET /v1/credits` does, where what is leased is available as well."""
    return {
        "object": "credits",
        "account_id": balance.account_id,
        "available_nano_credits": balance.available_nano_credits + balance.leased_nano_credits,
    }


def _error(error: TaskError) -> dict[str, Any]:
    message = error.message.replace("\0", "")[:_MAX_MESSAGE]
    return {"type": error.type, "code": error.code or None, "message": message, "param": None}


async def _tell(
    events: EventsService, delivery: Delivery, account_id: str, type: str, data: Mapping[str, Any]
) -> None:
    await events.publish(NewEvent(event_id(delivery.id), account_id, type, delivery.published_at, data))


HANDLERS: dict[type[Message], Callable[[Any, Delivery, Any], Awaitable[None]]] = {
    TaskFinished: on_task_finished,
    FileStored: on_file_stored,
    FileDeleted: on_file_deleted,
    BalanceLow: on_balance_low,
    BalanceExhausted: on_balance_exhausted,
}
