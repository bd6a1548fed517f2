"""Jobs as they are told to other services."""

from collections.abc import Mapping

from dozen.gateway.v1.gateway_pb2 import Admission
from dozen.jobs.v1.jobs_events_pb2 import TaskFinished, TaskRequested
from dozen.jobs.v1.jobs_pb2 import Priority, Task, TaskError, TaskState
from dozen_jobs.domain.jobs import Job, JobError, Status


def task(job: Job, parameters: bytes) -> Task:
    """Give a job as it is sent to other services."""
    sent = Task(
        id=job.id,
        account_id=job.account,
        key_id=job.key_id,
        type=job.task_type,
        priority=Priority.Value(f"PRIORITY_{job.priority.name}"),
        parameters=parameters,
        callback_url=job.callback_url or "",
        max_retries=job.max_retries,
        timeout_seconds=job.timeout_seconds,
    )
    sent.created_at.FromDatetime(job.created_at)
    return sent


def state(status: Status) -> TaskState.ValueType:
    """Give a status as it is sent."""
    return TaskState.Value(f"TASK_STATE_{status.name}")


def task_error(error: JobError | None) -> TaskError | None:
    """Give an error as it is sent; None where there is none."""
    if error is None:
        return None
    return TaskError(type=error.type, code=error.code, message=error.message)


def task_requested(job: Job, parameters: bytes, admission: Mapping[str, str]) -> TaskRequested:
    """Give the message that a worker takes the job from."""
    return TaskRequested(task=task(job, parameters), admission=Admission(headers=admission))


def task_finished(job: Job) -> TaskFinished:
    """Give the event that says how a job ended."""
    assert job.finished_at is not None
    event = TaskFinished(
        task_id=job.id,
        account_id=job.account,
        type=job.task_type,
        state=state(job.status),
        error=task_error(job.error),
    )
    event.finished_at.FromDatetime(job.finished_at)
    return event
