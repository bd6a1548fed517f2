"""What only the database can show: locks, bounded batches, and bytes that are kept as they are."""

from datetime import UTC, datetime, timedelta

import pytest

from dozen_chassis.postgres import Database
from dozen_jobs.domain.jobs import Job, JobError, Payload, Status, end, new_job_id
from dozen_jobs.domain.submissions import Priority
from dozen_jobs.repository import JobsRepository

pytestmark = pytest.mark.integration

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def jobs(database: Database) -> JobsRepository:
    return JobsRepository(database)


async def add(jobs: JobsRepository, parameters: bytes = b"{}") -> Job:
    job = Job(
        new_job_id(), "acme", "key1", "req_1", "chat.completions", Priority.LOW, "http://x", 0, 1, NOW
    )  # fmt: skip
    await jobs.add(job, parameters, b"mark", None)
    return job


async def test_what_is_saved_is_found(jobs: JobsRepository) -> None:
    json = b'{"nul":"\\u0000","large":100000000000000000000000.10}'
    job = await add(jobs, json)
    assert await jobs.find("acme", job.id) == (job, Payload(json))
    failed = end(job, Status.FAILED, NOW, JobError("a", "b", "c"))
    await jobs.save(failed, json)
    assert await jobs.find("acme", job.id) == (failed, Payload(json, json))
    assert await jobs.lock(job.id) == failed


async def test_one_replica_does_not_wait_for_overdue_jobs_of_another(jobs: JobsRepository) -> None:
    for _ in range(3):
        await add(jobs)
    later = NOW + timedelta(days=2)
    async with jobs.transaction() as one, jobs.transaction() as other:
        first = await one.lock_overdue(later, 2)
        second = await other.lock_overdue(later, 2)
    assert (len(first), len(second)) == (2, 1)
    assert len({job.id for job in first + second}) == 3


async def test_forgetting_is_bounded(jobs: JobsRepository) -> None:
    for _ in range(3):
        await jobs.save(end(await add(jobs), Status.CANCELLED, NOW), None)
    assert [await jobs.forget(NOW, 2) for _ in range(3)] == [2, 1, 0]


async def test_only_unfinished_jobs_are_counted_and_only_so_far(jobs: JobsRepository) -> None:
    for _ in range(3):
        await add(jobs)
    await jobs.save(end(await add(jobs), Status.SUCCEEDED, NOW), b"1")
    assert [await jobs.count_unfinished("acme", most) for most in (2, 9)] == [2, 3]
    assert await jobs.count_by_status() == {Status.QUEUED: 3}
