"""All SQL of the jobs service."""

from collections.abc import Mapping
from datetime import datetime

import asyncpg

from dozen_chassis.postgres import Repository
from dozen_jobs.domain.jobs import Job, JobError, Payload, Selection, Status
from dozen_jobs.domain.submissions import Priority

_COLUMNS = (
    "id, account_id, key_id, request_id, task_type, priority, callback_url, max_retries, timeout_seconds,"
    " created_at, status, attempts, started_at, finished_at, error_type, error_code, error_message"
)


class JobsRepository(Repository):
    """Jobs, with what was asked for and what came of it."""

    async def lock_account(self, account: str) -> None:
        """Let no other submission of an account in until the transaction ends."""
        await self.db.execute("select pg_advisory_xact_lock(hashtextextended($1, 0))", account)

    async def count_unfinished(self, account: str, most: int) -> int:
        """Count the unfinished jobs of an account, up to `most`."""
        count: int = await self.db.fetchval(
            "select count(*) from ("
            "  select from jobs where account_id = $1 and finished_at is null limit $2) as unfinished",
            account, most,
        )  # fmt: skip
        return count

    async def find_submitted(self, account: str, key: str, since: datetime) -> tuple[str, bytes] | None:
        """Give the job that an idempotency key stands for, and the fingerprint of its submission."""
        row = await self.db.fetchrow(
            "select id, fingerprint from jobs"
            " where account_id = $1 and idempotency_key = $2 and created_at > $3",
            account, key, since,
        )  # fmt: skip
        return (row["id"], row["fingerprint"]) if row else None

    async def add(self, job: Job, parameters: bytes, fingerprint: bytes, key: str | None) -> None:
        """Keep a new job; its idempotency key no longer stands for an older one."""
        if key is not None:
            await self.db.execute(
                "update jobs set idempotency_key = null where account_id = $1 and idempotency_key = $2",
                job.account, key,
            )  # fmt: skip
        await self.db.execute(
            "insert into jobs (id, account_id, key_id, request_id, task_type, priority, parameters,"
            " callback_url, max_retries, timeout_seconds, idempotency_key, fingerprint, status, attempts,"
            " created_at, expires_at)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
            job.id, job.account, job.key_id, job.request_id, job.task_type, job.priority, parameters,
            job.callback_url, job.max_retries, job.timeout_seconds, key, fingerprint, job.status,
            job.attempts, job.created_at, job.expires_at,
        )  # fmt: skip

    async def lock(self, job_id: str) -> Job | None:
        """Give a job that nobody else changes until the transaction ends."""
        row = await self.db.fetchrow(f"select {_COLUMNS} from jobs where id = $1 for update", job_id)
        return _job(row) if row else None

    async def lock_overdue(self, now: datetime, limit: int) -> list[Job]:
        """Do the same with unfinished jobs whose time is up, unless somebody is at them."""
        rows = await self.db.fetch(
            f"select {_COLUMNS} from jobs where finished_at is null and expires_at <= $1"
            " order by expires_at limit $2 for update skip locked",
            now, limit,
        )  # fmt: skip
        return [_job(row) for row in rows]

    async def save(self, job: Job, result: bytes | None) -> None:
        """Keep the state of a job, and its result."""
        error = job.error
        await self.db.execute(
            "update jobs set status = $2, attempts = $3, started_at = $4, finished_at = $5, result = $6,"
            " error_type = $7, error_code = $8, error_message = $9 where id = $1",
            job.id, job.status, job.attempts, job.started_at, job.finished_at, result,
            error and error.type, error and error.code, error and error.message,
        )  # fmt: skip

    async def find(self, account: str, job_id: str) -> tuple[Job, Payload] | None:
        """Give a job of an account."""
        row = await self.db.fetchrow(
            f"select {_COLUMNS}, parameters, result from jobs where id = $1 and account_id = $2",
            job_id, account,
        )  # fmt: skip
        return (_job(row), Payload(row["parameters"], row["result"])) if row else None

    async def page(self, account: str, selection: Selection) -> list[Job] | None:
        """Give jobs of an account in order; None where there is no job to begin after."""
        start = None
        if selection.after is not None:
            start = await self.db.fetchval(
                "select created_at from jobs where id = $1 and account_id = $2", selection.after, account
            )
            if start is None:
                return None
        beyond, direction = ("<", "desc") if selection.newest_first else (">", "asc")
        rows = await self.db.fetch(
            f"select {_COLUMNS} from jobs where account_id = $1"
            f" and ($2::timestamptz is null or (created_at, id) {beyond} ($2, $3))"
            " and ($4::text is null or status = $4) and ($5::text is null or task_type = $5)"
            f" order by created_at {direction}, id {direction} limit $6",
            account, start, selection.after, selection.status, selection.task_type, selection.limit,
        )  # fmt: skip
        return [_job(row) for row in rows]

    async def count_by_status(self) -> Mapping[Status, int]:
        """Count the unfinished jobs of all accounts."""
        rows = await self.db.fetch(
            "select status, count(*) from jobs where finished_at is null group by status"
        )
        return {Status(row["status"]): row["count"] for row in rows}

    async def forget(self, finished_before: datetime, limit: int) -> int:
        """Delete jobs; return how many."""
        status: str = await self.db.execute(
            "delete from jobs where id in ("
            "  select id from jobs where finished_at <= $1 order by finished_at limit $2)",
            finished_before, limit,
        )  # fmt: skip
        return int(status.split()[-1])


def _job(row: asyncpg.Record) -> Job:
    error = None
    if row["error_code"] is not None:
        error = JobError(row["error_type"], row["error_code"], row["error_message"])
    return Job(
        id=row["id"],
        account=row["account_id"],
        key_id=row["key_id"],
        request_id=row["request_id"],
        task_type=row["task_type"],
        priority=Priority(row["priority"]),
        callback_url=row["callback_url"],
        max_retries=row["max_retries"],
        timeout_seconds=row["timeout_seconds"],
        created_at=row["created_at"],
        status=Status(row["status"]),
        attempts=row["attempts"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        error=error,
    )
