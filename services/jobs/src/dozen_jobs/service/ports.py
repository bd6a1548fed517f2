"""What the use cases need of the world."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Protocol

from google.protobuf.message import Message

from dozen_jobs.domain.jobs import Job, Payload, Selection, Status
from dozen_jobs.domain.submissions import Facts


class Gateway(Protocol):
    """Decides whether an account's key may have work done."""

    async def admit(
        self, key_id: str, request_id: str, wanted: Facts, valid_for: timedelta
    ) -> Mapping[str, str]:
        """Give the headers of the admission; raise `SubmissionRefused` where there is none."""
        ...

    async def withdraw(self, request_id: str) -> None:
        """Say that an admitted request is never going to be sent."""
        ...


class Jobs(Protocol):
    """The jobs that are kept."""

    def transaction(self) -> AbstractAsyncContextManager["Jobs"]:
        """Give the same in one transaction."""
        ...

    async def emit(self, event: Message, *, subject_suffix: str = "") -> None:
        """Publish an event once the transaction has committed."""
        ...

    async def lock_account(self, account: str) -> None:
        """Let no other submission of an account in until the transaction ends."""
        ...

    async def count_unfinished(self, account: str, most: int) -> int:
        """Count the unfinished jobs of an account, up to `most`."""
        ...

    async def find_submitted(self, account: str, key: str, since: datetime) -> tuple[str, bytes] | None:
        """Give the job that an idempotency key stands for, and the fingerprint of its submission."""
        ...

    async def add(self, job: Job, parameters: bytes, fingerprint: bytes, key: str | None) -> None:
        """Keep a new job, under an idempotency key where there is one."""
        ...

    async def lock(self, job_id: str) -> Job | None:
        """Give a job that nobody else changes until the transaction ends."""
        ...

    async def lock_overdue(self, now: datetime, limit: int) -> list[Job]:
        """Do the same with unfinished jobs whose time is up."""
        ...

    async def save(self, job: Job, result: bytes | None) -> None:
        """Keep the state of a job, and its result."""
        ...

    async def find(self, account: str, job_id: str) -> tuple[Job, Payload] | None:
        """Give a job of an account."""
        ...

    async def page(self, account: str, selection: Selection) -> list[Job] | None:
        """Give jobs of an account in order; None where there is no job to begin after."""
        ...

    async def count_by_status(self) -> Mapping[Status, int]:
        """Count the unfinished jobs of all accounts."""
        ...

    async def forget(self, finished_before: datetime, limit: int) -> int:
        """Delete jobs; return how many."""
        ...
