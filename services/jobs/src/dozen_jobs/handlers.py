"""Handlers of the events that the jobs service takes."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC
from typing import Any

from google.protobuf.message import Message

from dozen.jobs.v1 import jobs_pb2
from dozen.jobs.v1.jobs_events_pb2 import TaskReported
from dozen_chassis.events import Delivery
from dozen_jobs.domain.jobs import JobError, Report, Status
from dozen_jobs.errors.jobs import InvalidReport
from dozen_jobs.service.jobs import JobsService

_STATUSES = {
    jobs_pb2.TASK_STATE_RUNNING: Status.RUNNING,
    jobs_pb2.TASK_STATE_SUCCEEDED: Status.SUCCEEDED,
    jobs_pb2.TASK_STATE_FAILED: Status.FAILED,
}


async def on_task_reported(event: TaskReported, delivery: Delivery, jobs: JobsService) -> None:
    """Move a job on; a report that comes late, twice or out of order does no harm."""
    status = _STATUSES.get(event.state)
    if status is None:
        raise InvalidReport()
    error = event.error
    at = event.reported_at.ToDatetime(UTC) if event.HasField("reported_at") else delivery.published_at
    await jobs.report(
        Report(
            job_id=event.task_id,
            status=status,
            attempt=max(1, event.attempt),
            at=at,
            result=event.result,
            error=JobError.told(error.type, error.code, error.message) if status is Status.FAILED else None,
        )
    )


HANDLERS: Mapping[type[Message], Callable[[Any, Delivery, Any], Awaitable[None]]] = {
    TaskReported: on_task_reported
}
