"""What jobs tells of tasks."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from dozen.jobs.v1.jobs_events_pb2 import TaskFinished
from dozen.jobs.v1.jobs_pb2 import TASK_STATE_CANCELLED, TASK_STATE_FAILED, TASK_STATE_SUCCEEDED
from dozen_admin.domain.tasks import Task
from dozen_admin.handlers.deliveries import time_of
from dozen_admin.service.intake import IntakeService
from dozen_chassis.events import Delivery

_STATES: Mapping[int, str] = {
    TASK_STATE_SUCCEEDED: "succeeded",
    TASK_STATE_FAILED: "failed",
    TASK_STATE_CANCELLED: "cancelled",
}
_MOST_ERROR = 1000


async def on_task_finished(event: TaskFinished, delivery: Delivery, intake: IntakeService) -> None:
    """Take a finished task."""
    await intake.task_finished(
        Task(
            id=event.task_id,
            account=event.account_id,
            type=event.type,
            state=_STATES.get(event.state, "unknown"),
            error=": ".join(filter(None, (event.error.code or event.error.type, event.error.message)))[
                :_MOST_ERROR
            ],
            finished_at=time_of(event.finished_at, delivery),
        )
    )


HANDLERS: Mapping[type[Message], Callable[[Any, Delivery, Any], Awaitable[None]]] = {
    TaskFinished: on_task_finished,
}
