"""Bodies of the jobs API."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

import msgspec
from pydantic import BaseModel

from dozen_jobs.domain.jobs import Job, Payload
from dozen_jobs.domain.submissions import Priority, Submission


class JobRequest(BaseModel):
    """Body of `POST /v1/jobs`."""

    task_type: str
    parameters: dict[str, Any]
    priority: Literal["high", "standard", "low"] = "standard"
    callback_url: str | None = None
    max_retries: int = 3
    timeout_seconds: int = 120

    def submission(self) -> Submission:
        """Give what is asked for."""
        parameters = json.dumps(self.parameters, ensure_ascii=False, separators=(",", ":"))
        return Submission(
            task_type=self.task_type,
            parameters=parameters.encode("utf-8", "surrogatepass"),
            priority=Priority(self.priority),
            callback_url=self.callback_url,
            max_retries=self.max_retries,
            timeout_seconds=self.timeout_seconds,
        )


def job_response(job: Job, payload: Payload) -> bytes:
    """Write a job, whole."""
    result = msgspec.Raw(payload.result) if payload.result is not None else None
    return msgspec.json.encode(
        {**_job_object(job), "parameters": msgspec.Raw(payload.parameters), "result": result}
    )


def list_response(jobs: Sequence[Job], *, has_more: bool) -> bytes:
    """Write a page of jobs, without their parameters and results, which may be megabytes each."""
    return msgspec.json.encode(
        {
            "object": "list",
            "data": [_job_object(job) for job in jobs],
            "first_id": jobs[0].id if jobs else None,
            "last_id": jobs[-1].id if jobs else None,
            "has_more": has_more,
        }
    )


def _job_object(job: Job) -> dict[str, Any]:
    return {
        "id": job.id,
        "object": "job",
        "task_type": job.task_type,
        "priority": job.priority,
        "status": job.status,
        "max_retries": job.max_retries,
        "timeout_seconds": job.timeout_seconds,
        "callback_url": job.callback_url,
        "created_at": _seconds(job.created_at),
        "started_at": _seconds(job.started_at),
        "finished_at": _seconds(job.finished_at),
        "attempts": job.attempts,
        "error": job.error
        and {
            "type": job.error.type,
            "code": job.error.code,
            "message": job.error.message,
            "param": None,
        },
    }


def _seconds(time: datetime | None) -> int | None:
    return None if time is None else int(time.timestamp())
