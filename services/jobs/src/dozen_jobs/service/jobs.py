"""The use cases of jobs: taken, handed to workers, reported on, finished and forgotten."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4
from weakref import WeakValueDictionary

from prometheus_client import Counter, Gauge, Histogram

from dozen_jobs.domain.jobs import (
    EXPIRED,
    MAX_WAIT,
    Job,
    Payload,
    Report,
    Selection,
    Status,
    advance,
    checked,
    end,
    is_job_id,
    new_job_id,
)
from dozen_jobs.domain.submissions import (
    IDEMPOTENCY,
    TASK_TYPES,
    Submission,
    facts,
    faults,
    fingerprint,
    is_idempotency_key,
    read_parameters,
)
from dozen_jobs.errors.jobs import JobAlreadyFinished, JobNotFound
from dozen_jobs.errors.submissions import (
    IdempotencyKeyReused,
    InvalidIdempotencyKey,
    InvalidJob,
    KeyOfAnotherAccount,
    TooManyJobs,
    UnknownTaskType,
)
from dozen_jobs.service.messages import task_finished, task_requested
from dozen_jobs.service.ports import Gateway, Jobs

SUBMITTED = Counter("dozen_jobs_submitted_jobs", "Jobs that were queued.", ["type"])
FINISHED = Counter("dozen_jobs_finished_jobs", "Jobs that reached a final state.", ["type", "state"])
UNFINISHED = Gauge("dozen_jobs_unfinished_jobs", "Jobs that wait or run, in all replicas.", ["state"])
QUEUE_TIME = Histogram(
    "dozen_jobs_queue_duration_seconds", "Time until a worker began a job.", ["type"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 43200),
)  # fmt: skip

_BATCH = 100
_RETRY_AFTER_SECONDS = "30"
# OpenAI's clients repeat a request after every 409; this tells them that it is in vain.
_IN_VAIN = {"x-should-retry": "false"}


def _now() -> datetime:
    return datetime.now(UTC)


class JobsService:
    """Takes jobs, hands them to workers and keeps what these report."""

    def __init__(
        self, jobs: Jobs, gateway: Gateway, *, max_unfinished: int, now: Callable[[], datetime] = _now
    ) -> None:
        self._jobs = jobs
        self._gateway = gateway
        self._max_unfinished = max_unfinished
        self._now = now
        self._submitting: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    async def submit(
        self, account: str, key_id: str, submission: Submission, idempotency_key: str | None = None
    ) -> tuple[Job, Payload]:
        """Queue a job; with an idempotency key that was used before, give the job of that time."""
        parameters = _read(submission, idempotency_key)
        mark = fingerprint(submission, parameters)
        job_id = new_job_id()
        # One at a time, so that requests with one key ask the gateway for one reservation only; across
        # replicas the lock on the account still lets only one of them in.
        alone = self._submitting.setdefault((account, idempotency_key or job_id), asyncio.Lock())
        async with alone:
            if known := await self._submitted(self._jobs, account, idempotency_key, mark):
                return known
            await self._check_room(self._jobs, account)
            request_id = f"req_{uuid4().hex}"
            wanted = facts(submission, parameters)
            admission = await self._gateway.admit(key_id, request_id, wanted, MAX_WAIT)
            is_kept = False
            try:
                if admission.get("x-dozen-account") != account:
                    raise KeyOfAnotherAccount()
                job = Job(
                    id=job_id,
                    account=account,
                    key_id=key_id,
                    request_id=request_id,
                    task_type=submission.task_type,
                    priority=submission.priority,
                    callback_url=submission.callback_url,
                    max_retries=submission.max_retries,
                    timeout_seconds=submission.timeout_seconds,
                    created_at=self._now(),
                )
                async with self._jobs.transaction() as jobs:
                    await jobs.lock_account(account)
                    if known := await self._submitted(jobs, account, idempotency_key, mark):
                        return known
                    await self._check_room(jobs, account)
                    await jobs.add(job, submission.parameters, mark, idempotency_key)
                    await jobs.emit(
                        task_requested(job, submission.parameters, admission),
                        subject_suffix=f".{job.task_type}.{job.priority}",
                    )
                is_kept = True
            finally:
                if not is_kept:  # so that nothing is held for what is never done
                    await self._gateway.withdraw(request_id)
        SUBMITTED.labels(job.task_type).inc()
        return job, Payload(submission.parameters)

    async def get(self, account: str, job_id: str) -> tuple[Job, Payload]:
        """Give a job of an account."""
        found = await self._jobs.find(account, job_id) if is_job_id(job_id) else None
        if found is None:
            raise JobNotFound(f"There is no job '{job_id}'.")
        return found

    async def page(self, account: str, selection: Selection) -> list[Job]:
        """Give jobs of an account in order."""
        possible = selection.after is None or is_job_id(selection.after)
        jobs = await self._jobs.page(account, selection) if possible else None
        if jobs is None:
            raise JobNotFound(f"There is no job '{selection.after}' to begin after.", param="after")
        return jobs

    async def cancel(self, account: str, job_id: str) -> tuple[Job, Payload]:
        """End a job that has not finished; what a worker reports afterwards is ignored."""
        _, payload = await self.get(account, job_id)
        async with self._jobs.transaction() as jobs:
            job = await jobs.lock(job_id)
            if job is None:
                raise JobNotFound(f"There is no job '{job_id}'.")
            if job.finished:
                raise JobAlreadyFinished(
                    f"The job is {job.status} already; it cannot be cancelled.", headers=_IN_VAIN
                )
            cancelled = end(job, Status.CANCELLED, self._now())
            await _finish(jobs, cancelled)
        _count(job, cancelled)
        return cancelled, payload

    async def report(self, report: Report) -> None:
        """Take what a worker says of a job; of one that has finished or is not known, nothing."""
        report = checked(report)
        async with self._jobs.transaction() as jobs:
            job = await jobs.lock(report.job_id)
            if job is None or (advanced := advance(job, report)) == job:
                return
            if advanced.finished:
                await _finish(jobs, advanced, report.result)
            else:
                await jobs.save(advanced, None)
        _count(job, advanced)

    async def expire(self) -> None:
        """Fail the jobs that no worker finished in their time."""
        while await self._expire_some() == _BATCH:
            pass

    async def forget(self, retention: timedelta) -> None:
        """Delete the jobs that finished so long ago."""
        while await self._jobs.forget(self._now() - retention, _BATCH) == _BATCH:
            pass

    async def measure(self) -> None:
        """Count the jobs that wait or run."""
        counts = await self._jobs.count_by_status()
        for status in (Status.QUEUED, Status.RUNNING):
            UNFINISHED.labels(status).set(counts.get(status, 0))

    async def _expire_some(self) -> int:
        now = self._now()
        async with self._jobs.transaction() as jobs:
            overdue = await jobs.lock_overdue(now, _BATCH)
            failed = [end(job, Status.FAILED, now, EXPIRED) for job in overdue]
            for job in failed:
                await _finish(jobs, job)
        for before, after in zip(overdue, failed, strict=True):
            _count(before, after)
        return len(failed)

    async def _submitted(
        self, jobs: Jobs, account: str, key: str | None, mark: bytes
    ) -> tuple[Job, Payload] | None:
        if key is None or not (found := await jobs.find_submitted(account, key, self._now() - IDEMPOTENCY)):
            return None
        job_id, earlier = found
        if earlier != mark:
            raise IdempotencyKeyReused(headers=_IN_VAIN)
        return await jobs.find(account, job_id)

    async def _check_room(self, jobs: Jobs, account: str) -> None:
        if await jobs.count_unfinished(account, self._max_unfinished) >= self._max_unfinished:
            raise TooManyJobs(headers={"retry-after": _RETRY_AFTER_SECONDS})


def _read(submission: Submission, idempotency_key: str | None) -> dict[str, Any]:
    """Give the parameters of a submission; raise where it is not valid."""
    if idempotency_key is not None and not is_idempotency_key(idempotency_key):
        raise InvalidIdempotencyKey()
    if submission.task_type not in TASK_TYPES:
        raise UnknownTaskType(
            f"There is no task type '{submission.task_type}'; there is {', '.join(sorted(TASK_TYPES))}.",
            param="task_type",
        )
    parameters = read_parameters(submission.parameters)
    if parameters is None:
        raise InvalidJob("parameters must be a JSON object.", param="parameters")
    for fault in faults(submission, parameters):
        raise InvalidJob(f"{fault.param} {fault.should}.", param=fault.param)
    return parameters


async def _finish(jobs: Jobs, job: Job, result: bytes | None = None) -> None:
    await jobs.save(job, result)
    await jobs.emit(task_finished(job))


def _count(before: Job, after: Job) -> None:
    """Count what a job went through; called once its transaction has committed."""
    if after.started_at and not before.started_at:
        QUEUE_TIME.labels(after.task_type).observe(
            max(0.0, (after.started_at - after.created_at).total_seconds())  # a worker's clock may be behind
        )
    if after.finished:
        FINISHED.labels(after.task_type, after.status).inc()
