"""Use cases of jobs, each with jobs in memory and with jobs in PostgreSQL."""

import asyncio
import copy
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.message import Message
from prometheus_client import REGISTRY

from dozen.jobs.v1.jobs_events_pb2 import TaskFinished, TaskRequested
from dozen_chassis.errors import DependencyUnavailable, ServiceError
from dozen_chassis.postgres import Database
from dozen_jobs.domain.jobs import EXPIRED, Job, JobError, Payload, Report, Selection, Status
from dozen_jobs.domain.submissions import Facts, Priority, Submission
from dozen_jobs.errors.jobs import JobAlreadyFinished, JobNotFound
from dozen_jobs.errors.refusals import SubmissionRefused
from dozen_jobs.errors.submissions import (
    IdempotencyKeyReused,
    InvalidIdempotencyKey,
    InvalidJob,
    KeyOfAnotherAccount,
    TooManyJobs,
    UnknownTaskType,
)
from dozen_jobs.repository import JobsRepository
from dozen_jobs.service.jobs import JobsService
from dozen_jobs.service.ports import Jobs

HELLO = Submission("chat.completions", b'{"model":"m","messages":[]}')
OTHER = replace(HELLO, max_retries=0)


@dataclass
class Row:
    """A job as it is kept."""

    job: Job
    payload: Payload
    fingerprint: bytes
    key: str | None


@dataclass
class FakeJobs:
    """Jobs in memory."""

    rows: dict[str, Row] = field(default_factory=dict)
    events: list[tuple[str, Message]] = field(default_factory=list)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["FakeJobs"]:
        before = copy.deepcopy(self.rows), list(self.events)
        try:
            yield self
        except BaseException:
            self.rows, self.events = before
            raise

    async def emit(self, event: Message, *, subject_suffix: str = "") -> None:
        self.events.append((event.DESCRIPTOR.full_name + subject_suffix, event))

    async def lock_account(self, account: str) -> None:
        pass

    async def count_unfinished(self, account: str, most: int) -> int:
        return min(
            most, sum(not row.job.finished for row in self.rows.values() if row.job.account == account)
        )

    async def find_submitted(self, account: str, key: str, since: datetime) -> tuple[str, bytes] | None:
        for row in self.rows.values():
            if (row.job.account, row.key) == (account, key) and row.job.created_at > since:
                return row.job.id, row.fingerprint
        return None

    async def add(self, job: Job, parameters: bytes, fingerprint: bytes, key: str | None) -> None:
        for row in self.rows.values():
            row.key = None if (row.job.account, row.key) == (job.account, key) else row.key
        self.rows[job.id] = Row(job, Payload(parameters), fingerprint, key)

    async def lock(self, job_id: str) -> Job | None:
        return self.rows[job_id].job if job_id in self.rows else None

    async def lock_overdue(self, now: datetime, limit: int) -> list[Job]:
        jobs = [row.job for row in self.rows.values()]
        return [job for job in jobs if not job.finished and job.expires_at <= now][:limit]

    async def save(self, job: Job, result: bytes | None) -> None:
        row = self.rows[job.id]
        row.job, row.payload = job, replace(row.payload, result=result)

    async def find(self, account: str, job_id: str) -> tuple[Job, Payload] | None:
        row = self.rows.get(job_id)
        return (row.job, row.payload) if row and row.job.account == account else None

    async def page(self, account: str, selection: Selection) -> list[Job] | None:
        jobs = [row.job for row in self.rows.values() if row.job.account == account]
        jobs.sort(key=lambda job: (job.created_at, job.id), reverse=selection.newest_first)
        if selection.after is not None:
            ids = [job.id for job in jobs]
            if selection.after not in ids:
                return None
            jobs = jobs[ids.index(selection.after) + 1 :]
        wanted = (selection.status, selection.task_type)
        return [
            job
            for job in jobs
            if all(
                want in (None, have) for want, have in zip(wanted, (job.status, job.task_type), strict=True)
            )
        ][: selection.limit]

    async def count_by_status(self) -> Mapping[Status, int]:
        states = [row.job.status for row in self.rows.values() if not row.job.finished]
        return {state: states.count(state) for state in states}

    async def forget(self, finished_before: datetime, limit: int) -> int:
        ends = [(row.job.finished_at, row.job.id) for row in self.rows.values()]
        old = [job_id for end, job_id in ends if end is not None and end <= finished_before][:limit]
        for job_id in old:
            del self.rows[job_id]
        return len(old)


@dataclass
class FakeGateway:
    """Admits everything, for one account."""

    account: str = "acme"
    asked: list[tuple[str, str, Facts, timedelta]] = field(default_factory=list)
    error: ServiceError | None = None
    withdrawn: list[str] = field(default_factory=list)

    async def admit(
        self, key_id: str, request_id: str, wanted: Facts, valid_for: timedelta
    ) -> Mapping[str, str]:
        self.asked.append((key_id, request_id, wanted, valid_for))
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return {"x-dozen-account": self.account, "x-request-id": request_id, "x-dozen-admission": "signed"}

    async def withdraw(self, request_id: str) -> None:
        self.withdrawn.append(request_id)


@dataclass
class Stage:
    """The service with everything around it."""

    jobs: Jobs
    published: Callable[[], Awaitable[list[tuple[str, Message]]]]
    gateway: FakeGateway = field(default_factory=FakeGateway)
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def service(self, max_unfinished: int = 1000) -> JobsService:
        """Give another replica of the service."""
        return JobsService(self.jobs, self.gateway, max_unfinished=max_unfinished, now=lambda: self.now)

    async def submit(self, submission: Submission = HELLO, key: str | None = None) -> Job:
        """Queue a job, a second after the one before."""
        self.now += timedelta(seconds=1)
        job, _ = await self.service().submit("acme", "key1", submission, key)
        return job

    async def events(self, kind: type[Message]) -> list[Any]:
        """Give the events of one kind that were published."""
        return [event for _, event in await self.published() if isinstance(event, kind)]


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    if request.param == "memory":
        jobs = FakeJobs()

        async def remembered() -> list[tuple[str, Message]]:
            return jobs.events

        yield Stage(jobs, remembered)
        return
    async with request.getfixturevalue("databases").fresh("dozen_jobs") as dsn:
        database = await Database.open(dsn)

        async def waiting() -> list[tuple[str, Message]]:
            rows = await database.pool.fetch("select subject, payload from outbox order by id")
            kinds = {kind.DESCRIPTOR.name: kind for kind in (TaskRequested, TaskFinished)}
            return [
                (row["subject"], kinds[row["subject"].split(".")[3]].FromString(row["payload"]))
                for row in rows
            ]

        yield Stage(JobsRepository(database), waiting)
        await database.close()


def reported(job: Job, status: Status, attempt: int = 1) -> Report:
    error = JobError("server_error", "broken", "It broke.") if status is Status.FAILED else None
    result = b'{"answer": "\\u0000"}' if status is Status.SUCCEEDED else None
    return Report(job.id, status, attempt, job.created_at + timedelta(seconds=attempt), result, error)


async def test_a_job_is_kept_and_requested_with_the_admission_of_the_gateway(stage: Stage) -> None:
    url = "https://example.com/hook"
    submission = Submission("chat.completions", b'{"model":"m"}', Priority.HIGH, url, 0, 7)
    job, payload = await stage.service().submit("acme", "key1", submission)
    assert await stage.service().get("acme", job.id) == (job, payload)
    assert (job.status, job.attempts, payload) == (Status.QUEUED, 0, Payload(b'{"model":"m"}'))
    ((key_id, request_id, wanted, valid_for),) = stage.gateway.asked
    assert (key_id, request_id, valid_for) == ("key1", job.request_id, timedelta(hours=24))
    assert wanted == Facts("POST", "/v1/chat/completions", 13, "m", None, None)
    ((subject, event),) = await stage.published()
    assert subject == "dozen.jobs.v1.TaskRequested.chat.completions.high"
    assert isinstance(event, TaskRequested)
    task = event.task
    assert (task.id, task.account_id, task.key_id, task.type) == (job.id, "acme", "key1", job.task_type)
    assert (task.parameters, task.callback_url) == (b'{"model":"m"}', url)
    assert (task.max_retries, task.timeout_seconds) == (0, 7)
    assert task.created_at.ToDatetime(UTC) == job.created_at
    assert dict(event.admission.headers) == {
        "x-dozen-account": "acme",
        "x-request-id": job.request_id,
        "x-dozen-admission": "signed",
    }


@pytest.mark.parametrize(
    ("submission", "error", "param"),
    [
        (replace(HELLO, task_type="chat.poems"), UnknownTaskType, "task_type"),
        (replace(HELLO, parameters=b"[]"), InvalidJob, "parameters"),
        (replace(HELLO, parameters=b'{"model": "m", "stream": true}'), InvalidJob, "parameters.stream"),
        (replace(HELLO, timeout_seconds=0), InvalidJob, "timeout_seconds"),
    ],
)
async def test_an_invalid_submission_is_refused_before_anybody_is_asked(
    stage: Stage, submission: Submission, error: type[ServiceError], param: str
) -> None:
    with pytest.raises(error) as caught:
        await stage.submit(submission)
    assert caught.value.param == param
    assert not stage.gateway.asked


async def test_an_unknown_task_type_is_told_the_known_ones(stage: Stage) -> None:
    with pytest.raises(UnknownTaskType, match=r"there is chat\.completions"):
        await stage.submit(replace(HELLO, task_type="chat.poems"))


@pytest.mark.parametrize("error", [DependencyUnavailable(), SubmissionRefused(429, "a", "b", "c")])
async def test_nothing_is_kept_of_what_the_gateway_does_not_admit(stage: Stage, error: ServiceError) -> None:
    stage.gateway.error = error
    with pytest.raises(type(error)):
        await stage.submit(key="k")
    assert await stage.service().page("acme", Selection()) == []
    stage.gateway.error = None
    assert await stage.submit(key="k")
    assert len(await stage.published()) == 1


async def test_a_key_of_another_account_cannot_pay(stage: Stage) -> None:
    stage.gateway.account = "other"
    with pytest.raises(KeyOfAnotherAccount):
        await stage.submit()
    assert await stage.published() == []
    assert stage.gateway.withdrawn == [request_id for _, request_id, _, _ in stage.gateway.asked]


async def test_a_repeated_submission_is_one_job(stage: Stage) -> None:
    first = await stage.submit(key="k")
    assert await stage.submit(key="k") == first
    assert await stage.submit(replace(HELLO, parameters=b'{"messages": [], "model": "m"}'), "k") == first
    assert await stage.submit(key="l") != first
    with pytest.raises(IdempotencyKeyReused) as caught:
        await stage.submit(OTHER, "k")
    assert caught.value.headers == {"x-should-retry": "false"}
    assert len(await stage.published()) == len(stage.gateway.asked) == 2


async def test_a_repeated_submission_tells_how_the_job_stands(stage: Stage) -> None:
    job = await stage.submit(key="k")
    await stage.service().report(reported(job, Status.SUCCEEDED))
    again, payload = await stage.service().submit("acme", "key1", HELLO, "k")
    assert (again.status, payload.result) == (Status.SUCCEEDED, b'{"answer": "\\u0000"}')


async def test_an_idempotency_key_is_the_accounts_own(stage: Stage) -> None:
    job = await stage.submit(key="k")
    stage.gateway.account = "other"
    other, _ = await stage.service().submit("other", "key2", OTHER, "k")
    assert other.id != job.id


async def test_an_idempotency_key_is_free_again_after_a_day(stage: Stage) -> None:
    first = await stage.submit(key="k")
    stage.now += timedelta(hours=24)
    second = await stage.submit(OTHER, "k")
    assert second.id != first.id
    assert await stage.submit(OTHER, "k") == second


@pytest.mark.parametrize("key", ["", "a" * 256, "a\0", "ä"])
async def test_an_idempotency_key_has_a_form(stage: Stage, key: str) -> None:
    with pytest.raises(InvalidIdempotencyKey):
        await stage.submit(key=key)


async def test_the_same_key_twenty_times_at_once_is_one_job_and_one_question(stage: Stage) -> None:
    service = stage.service()
    answers = await asyncio.gather(*(service.submit("acme", "key1", HELLO, "k") for _ in range(20)))
    assert len({job.id for job, _ in answers}) == 1
    assert len(stage.gateway.asked) == len(await stage.events(TaskRequested)) == 1


async def test_the_same_key_at_once_in_many_replicas_is_one_job(stage: Stage) -> None:
    bodies = itertools.islice(itertools.cycle([HELLO, OTHER]), 20)
    answers = await asyncio.gather(
        *(stage.service().submit("acme", "key1", body, "k") for body in bodies), return_exceptions=True
    )
    jobs = {answer[0].id for answer in answers if isinstance(answer, tuple)}
    refused = [answer for answer in answers if isinstance(answer, IdempotencyKeyReused)]
    assert (len(jobs), len(refused)) == (1, 10)
    assert len(await stage.events(TaskRequested)) == 1


async def test_an_account_has_room_for_so_many_unfinished_jobs_and_no_more(stage: Stage) -> None:
    answers = await asyncio.gather(
        *(stage.service(max_unfinished=5).submit("acme", "key1", HELLO) for _ in range(20)),
        return_exceptions=True,
    )
    refused = [answer for answer in answers if isinstance(answer, TooManyJobs)]
    jobs = [answer[0] for answer in answers if isinstance(answer, tuple)]
    assert (len(jobs), len(refused)) == (5, 15)
    assert refused[0].headers == {"retry-after": "30"}
    # What is held for those that were refused after they had been admitted is let go.
    held = {request_id for _, request_id, _, _ in stage.gateway.asked} - set(stage.gateway.withdrawn)
    assert held == {job.request_id for job in jobs}
    asked = len(stage.gateway.asked)
    with pytest.raises(TooManyJobs):
        await stage.service(max_unfinished=5).submit("acme", "key1", HELLO)
    assert len(stage.gateway.asked) == asked
    await stage.service().report(reported(jobs[0], Status.FAILED))
    assert await stage.service(max_unfinished=5).submit("acme", "key1", HELLO)
    stage.gateway.account = "other"
    assert await stage.service(max_unfinished=1).submit("other", "key2", HELLO)


async def test_a_job_runs_and_succeeds(stage: Stage) -> None:
    job = await stage.submit()
    await stage.service().report(reported(job, Status.RUNNING))
    running, _ = await stage.service().get("acme", job.id)
    assert (running.status, running.attempts) == (Status.RUNNING, 1)
    assert running.started_at == job.created_at + timedelta(seconds=1)
    assert await stage.events(TaskFinished) == []
    await stage.service().report(reported(job, Status.SUCCEEDED, 2))
    done, payload = await stage.service().get("acme", job.id)
    assert (done.status, done.attempts, done.error) == (Status.SUCCEEDED, 2, None)
    assert payload.result == b'{"answer": "\\u0000"}'
    (event,) = await stage.events(TaskFinished)
    assert (event.task_id, event.account_id, event.type) == (job.id, "acme", "chat.completions")
    assert event.state == 3
    assert not event.HasField("error")
    assert event.finished_at.ToDatetime(UTC) == done.finished_at


async def test_a_job_fails_with_the_workers_words(stage: Stage) -> None:
    job = await stage.submit()
    await stage.service().report(reported(job, Status.FAILED, 4))
    failed, payload = await stage.service().get("acme", job.id)
    assert (failed.status, failed.attempts, payload.result) == (Status.FAILED, 4, None)
    assert failed.error == JobError("server_error", "broken", "It broke.")
    (event,) = await stage.events(TaskFinished)
    assert (event.state, event.error.code) == (4, "broken")


@pytest.mark.parametrize("last", [Status.SUCCEEDED, Status.FAILED])
async def test_reports_in_every_order_end_the_same_and_finish_once(stage: Stage, last: Status) -> None:
    ends = set()
    orders = set(itertools.permutations([(Status.RUNNING, 1), (Status.RUNNING, 2), (last, 2), (last, 2)]))
    for count, order in enumerate(orders, 1):
        job = await stage.submit()
        for status, attempt in order:
            await stage.service().report(reported(job, status, attempt))
        end, payload = await stage.service().get("acme", job.id)
        ends.add((end.status, end.attempts, end.error, payload.result))
        assert len(await stage.events(TaskFinished)) == count
    assert len(ends) == 1


async def test_reports_that_come_at_once_finish_a_job_once(stage: Stage) -> None:
    job = await stage.submit()
    words = [Status.RUNNING, Status.SUCCEEDED, Status.FAILED] * 4
    await asyncio.gather(*(stage.service().report(reported(job, status)) for status in words))
    end, _ = await stage.service().get("acme", job.id)
    (event,) = await stage.events(TaskFinished)
    assert end.finished
    assert event.state == {Status.SUCCEEDED: 3, Status.FAILED: 4}[end.status]


async def test_a_report_of_an_unknown_job_changes_nothing(stage: Stage) -> None:
    job = await stage.submit()
    await stage.service().report(replace(reported(job, Status.SUCCEEDED), job_id="job_unknown"))
    assert (await stage.service().get("acme", job.id))[0] == job
    assert await stage.events(TaskFinished) == []


@pytest.mark.parametrize("begun", [False, True])
async def test_a_cancelled_job_stays_cancelled(stage: Stage, begun: bool) -> None:
    job = await stage.submit()
    if begun:
        await stage.service().report(reported(job, Status.RUNNING))
    cancelled, payload = await stage.service().cancel("acme", job.id)
    assert (cancelled.status, cancelled.finished_at) == (Status.CANCELLED, stage.now)
    await stage.service().report(reported(job, Status.SUCCEEDED))
    assert await stage.service().get("acme", job.id) == (cancelled, payload)
    with pytest.raises(JobAlreadyFinished) as caught:
        await stage.service().cancel("acme", job.id)
    assert caught.value.http.status == 409
    (event,) = await stage.events(TaskFinished)
    assert event.state == 5


async def test_a_job_is_cancelled_or_finished_but_not_both(stage: Stage) -> None:
    job = await stage.submit()
    await asyncio.gather(
        stage.service().cancel("acme", job.id),
        stage.service().report(reported(job, Status.SUCCEEDED)),
        stage.service().cancel("acme", job.id),
        return_exceptions=True,
    )
    assert len(await stage.events(TaskFinished)) == 1


async def test_other_accounts_do_not_see_a_job(stage: Stage) -> None:
    job = await stage.submit()
    with pytest.raises(JobNotFound):
        await stage.service().get("other", job.id)
    with pytest.raises(JobNotFound):
        await stage.service().cancel("other", job.id)
    with pytest.raises(JobNotFound):
        await stage.service().page("other", Selection(after=job.id))
    assert await stage.service().page("other", Selection()) == []
    assert (await stage.service().get("acme", job.id))[0].status is Status.QUEUED


@pytest.mark.parametrize("job_id", ["", "job_1", "job_" + "0" * 32, "\0"])
async def test_what_is_no_jobs_id_is_not_found(stage: Stage, job_id: str) -> None:
    for call in (stage.service().get, stage.service().cancel):
        with pytest.raises(JobNotFound):
            await call("acme", job_id)
    with pytest.raises(JobNotFound):
        await stage.service().page("acme", Selection(after=job_id))


@pytest.mark.parametrize("newest_first", [True, False])
async def test_pages_join_without_gap_or_overlap(stage: Stage, newest_first: bool) -> None:
    jobs = [await stage.submit() for _ in range(4)]
    moment = stage.now
    for _ in range(3):  # at the same moment as the last, so that only the id tells them apart
        stage.now = moment - timedelta(seconds=1)
        jobs.append(await stage.submit())
    expected = sorted(jobs, key=lambda job: (job.created_at, job.id), reverse=newest_first)
    found: list[Job] = []
    while page := await stage.service().page(
        "acme", Selection(2, found[-1].id if found else None, newest_first)
    ):
        found += page
    assert found == expected


async def test_pages_are_selected_by_state_and_type(stage: Stage) -> None:
    first, second = await stage.submit(), await stage.submit()
    await stage.service().cancel("acme", first.id)
    queued = await stage.service().page("acme", Selection(status=Status.QUEUED))
    assert [job.id for job in queued] == [second.id]
    typed = await stage.service().page("acme", Selection(task_type="chat.completions"))
    assert [job.id for job in typed] == [second.id, first.id]
    assert await stage.service().page("acme", Selection(task_type="chat.poems")) == []


async def test_a_job_whose_time_is_up_fails_and_others_go_on(stage: Stage) -> None:
    early = await stage.submit(OTHER)
    done = await stage.submit(OTHER)
    await stage.service().report(reported(done, Status.SUCCEEDED))
    late = await stage.submit()
    stage.now = early.expires_at - timedelta(seconds=1)
    await stage.service().expire()
    assert (await stage.service().get("acme", early.id))[0] == early
    stage.now = early.expires_at
    await stage.service().expire()
    failed, _ = await stage.service().get("acme", early.id)
    assert (failed.status, failed.error, failed.finished_at) == (Status.FAILED, EXPIRED, stage.now)
    assert (await stage.service().get("acme", late.id))[0] == late
    finished = await stage.events(TaskFinished)
    assert [(event.task_id, event.error.code) for event in finished] == [
        (done.id, ""),
        (early.id, "task_expired"),
    ]


async def test_more_overdue_jobs_than_a_batch_finish_once_each_in_two_replicas(stage: Stage) -> None:
    jobs = [await stage.submit() for _ in range(120)]
    stage.now = jobs[-1].expires_at
    await asyncio.gather(stage.service().expire(), stage.service().expire())
    finished = [event.task_id for event in await stage.events(TaskFinished)]
    assert sorted(finished) == sorted(job.id for job in jobs)


async def test_only_jobs_that_finished_long_ago_are_forgotten(stage: Stage) -> None:
    old, unfinished = await stage.submit(), await stage.submit()
    await stage.service().cancel("acme", old.id)
    stage.now += timedelta(days=30)
    fresh = await stage.submit()
    await stage.service().cancel("acme", fresh.id)
    await stage.service().forget(timedelta(days=30))
    left = await stage.service().page("acme", Selection())
    assert [job.id for job in left] == [fresh.id, unfinished.id]
    await stage.service().report(reported(old, Status.SUCCEEDED))
    assert len(await stage.events(TaskFinished)) == 2


async def test_what_happens_is_measured(stage: Stage) -> None:
    def value(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    def counts() -> tuple[float, ...]:
        return (
            value("dozen_jobs_submitted_jobs_total", type="chat.completions"),
            value("dozen_jobs_finished_jobs_total", type="chat.completions", state="cancelled"),
            value("dozen_jobs_queue_duration_seconds_count", type="chat.completions"),
            value("dozen_jobs_queue_duration_seconds_sum", type="chat.completions"),
        )

    before = counts()
    jobs = [await stage.submit() for _ in range(3)]
    await stage.service().report(reported(jobs[0], Status.RUNNING))
    await stage.service().report(reported(jobs[0], Status.RUNNING, 2))
    await stage.service().cancel("acme", jobs[1].id)
    await stage.service().measure()
    assert [after - was for was, after in zip(before, counts(), strict=True)] == [3, 1, 1, 1]
    assert value("dozen_jobs_unfinished_jobs", state="queued") == 1
    assert value("dozen_jobs_unfinished_jobs", state="running") == 1
    await stage.service().cancel("acme", jobs[2].id)
    await stage.service().measure()
    assert value("dozen_jobs_unfinished_jobs", state="queued") == 0
