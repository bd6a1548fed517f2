"""Handlers, on a service that remembers what it is told."""

from datetime import UTC, datetime
from typing import cast

import pytest

from dozen.jobs.v1.jobs_events_pb2 import TaskReported
from dozen.jobs.v1.jobs_pb2 import TaskError, TaskState
from dozen_chassis.events import Delivery
from dozen_jobs.domain.jobs import JobError, Report, Status
from dozen_jobs.errors.jobs import InvalidReport
from dozen_jobs.handlers import HANDLERS
from dozen_jobs.service.jobs import JobsService

DELIVERY = Delivery("event-1", 1, datetime(2026, 1, 1, tzinfo=UTC))


class FakeService:
    """Remembers reports."""

    def __init__(self) -> None:
        self.reports: list[Report] = []

    async def report(self, report: Report) -> None:
        self.reports.append(report)


async def told(event: TaskReported) -> Report:
    service = FakeService()
    await HANDLERS[TaskReported](event, DELIVERY, cast(JobsService, service))
    (report,) = service.reports
    return report


async def test_a_report_is_read_whole() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    event = TaskReported(task_id="job_1", state=TaskState.TASK_STATE_SUCCEEDED, attempt=2, result=b"{}")
    event.reported_at.FromDatetime(at)
    assert await told(event) == Report("job_1", Status.SUCCEEDED, 2, at, b"{}", None)


async def test_what_a_report_leaves_out_is_filled_in() -> None:
    report = await told(TaskReported(task_id="job_1", state=TaskState.TASK_STATE_RUNNING))
    assert (report.status, report.attempt, report.at) == (Status.RUNNING, 1, DELIVERY.published_at)


async def test_a_failure_has_its_error_whatever_the_worker_says() -> None:
    event = TaskReported(task_id="job_1", state=TaskState.TASK_STATE_FAILED)
    assert (await told(event)).error == JobError("server_error", "task_failed", "The task failed.")
    event.error.CopyFrom(TaskError(type="a", code="b", message="c"))
    assert (await told(event)).error == JobError("a", "b", "c")


@pytest.mark.parametrize("state", ["UNSPECIFIED", "QUEUED", "CANCELLED"])
async def test_a_state_that_no_worker_reports_is_set_aside(state: str) -> None:
    with pytest.raises(InvalidReport):
        await told(TaskReported(task_id="job_1", state=TaskState.Value(f"TASK_STATE_{state}")))
