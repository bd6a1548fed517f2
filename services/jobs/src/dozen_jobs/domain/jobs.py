"""Jobs: the states that one goes through, and the reports that move it."""

import re
import uuid
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from dozen_jobs.domain.submissions import Priority

MAX_WAIT = timedelta(hours=24)
"""How long a job may wait for a worker: its admission is valid for so long."""
MAX_RESULT_BYTES = 1024 * 1024

_MAX_ERROR = 1000
_JOB_ID = re.compile(r"job_[0-9a-f]{32}")


class Status(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


FINAL = frozenset({Status.SUCCEEDED, Status.FAILED, Status.CANCELLED})


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed, in the terms of OpenAI's error object."""

    type: str
    code: str
    message: str

    @classmethod
    def told(cls, type: str, code: str, message: str) -> "JobError":
        """Keep what a worker tells, within limits and with something in each place."""
        kind, reason, text = (part.replace("\0", "")[:_MAX_ERROR] for part in (type, code, message))
        return cls(kind or "server_error", reason or "task_failed", text or "The task failed.")


EXPIRED = JobError("server_error", "task_expired", "The task was not finished in the time that it had.")
RESULT_TOO_LARGE = JobError("server_error", "result_too_large", "The result is larger than 1 MiB.")
RESULT_NOT_JSON = JobError("server_error", "invalid_result", "The result is not JSON.")


@dataclass(frozen=True, slots=True)
class Job:
    """A job without its parameters and its result, which are large."""

    id: str
    account: str
    key_id: str
    request_id: str
    """The id under which the work is charged."""
    task_type: str
    priority: Priority
    callback_url: str | None
    max_retries: int
    timeout_seconds: int
    created_at: datetime
    status: Status = Status.QUEUED
    attempts: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: JobError | None = None

    @property
    def finished(self) -> bool:
        """True once the state is final."""
        return self.status in FINAL

    @property
    def expires_at(self) -> datetime:
        """After this time no worker can be at it any more."""
        return self.created_at + MAX_WAIT + timedelta(seconds=self.timeout_seconds) * (self.max_retries + 1)


@dataclass(frozen=True, slots=True)
class Payload:
    """What a job was asked with and what came of it, both JSON."""

    parameters: bytes
    result: bytes | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says of a job: running, succeeded or failed."""

    job_id: str
    status: Status
    attempt: int
    at: datetime
    result: bytes | None = None
    error: JobError | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """Which jobs of an account to list."""

    limit: int = 20
    after: str | None = None
    """The id of the last job of the page before."""
    newest_first: bool = True
    status: Status | None = None
    task_type: str | None = None


def new_job_id() -> str:
    """Make the id of a job."""
    return f"job_{uuid.uuid4().hex}"


def is_job_id(text: str) -> bool:
    """Tell whether a text could be the id of a job."""
    return _JOB_ID.fullmatch(text) is not None


def checked(report: Report) -> Report:
    """Turn a success whose result cannot be kept into a failure."""
    if report.status is not Status.SUCCEEDED:
        return replace(report, result=None)
    result = report.result or b""
    if len(result) > MAX_RESULT_BYTES:
        return replace(report, status=Status.FAILED, result=None, error=RESULT_TOO_LARGE)
    try:
        msgspec.json.decode(result)
    except (ValueError, RecursionError):
        return replace(report, status=Status.FAILED, result=None, error=RESULT_NOT_JSON)
    return report


def advance(job: Job, report: Report) -> Job:
    """Give a job after a report, whenever it comes and however often; a final state never changes."""
    if job.finished:
        return job
    job = replace(job, status=report.status, attempts=max(job.attempts, report.attempt))
    if report.status is Status.RUNNING:
        return replace(job, started_at=job.started_at or report.at)
    return replace(job, finished_at=report.at, error=report.error)


def end(job: Job, status: Status, at: datetime, error: JobError | None = None) -> Job:
    """Give an unfinished job in a final state that no worker reported."""
    return replace(job, status=status, finished_at=at, error=error)
