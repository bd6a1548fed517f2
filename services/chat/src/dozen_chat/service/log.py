"""What is kept of each request: what came of it, and what it used."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from google.protobuf.message import Message

from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen.jobs.v1.jobs_events_pb2 import TaskReported
from dozen_inference.outcome import Outcome
from dozen_inference.usage import usage_reported


@dataclass(frozen=True, slots=True)
class Entry:
    """What came of a request and, where it was a task, what is finally said of that."""

    usage: UsageRecord | None
    """What is reported to credits: nothing where a task will be tried again."""
    outcome: Outcome | None = None
    """Of a request that was sent upstream."""
    report: TaskReported | None = None
    delivery_id: str = ""
    """Of a task that has ended."""


class Transaction(Protocol):
    """What is written together."""

    async def emit(self, event: Message, *, may_merge: bool = False) -> None:
        """Publish an event; one that `may_merge` a little later, as one with others."""
        ...

    async def first_delivery(self, event_id: str) -> bool:
        """Record that an event is handled; False where it already was."""
        ...


class Requests(Transaction, Protocol):
    """The log of requests."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Write several things together."""
        ...

    async def is_handled(self, event_id: str) -> bool:
        """Tell whether an event was handled to its end."""
        ...

    async def forget(self, older_than: timedelta, limit: int) -> int:
        """Drop log entries of that age; return how many."""
        ...


class Log(Protocol):
    """Where it is kept what came of requests."""

    async def put(self, entry: Entry) -> None:
        """Make an entry durable."""
        ...


async def write(requests: Requests, entries: list[Entry], history: Callable[[Outcome], None]) -> None:
    """Write the entries of many requests: what they used, and what tasks came to, once.

    What came of a request goes into the history, which is written later and need not be complete.
    """
    for entry in entries:
        if entry.outcome is not None:
            history(entry.outcome)
    if not any(entry.delivery_id or entry.report for entry in entries):
        if used := [entry.usage for entry in entries if entry.usage]:
            await requests.emit(usage_reported(used), may_merge=True)  # one statement, no transaction
        return
    async with requests.transaction() as transaction:
        used = []
        for entry in entries:
            if entry.delivery_id and not await transaction.first_delivery(entry.delivery_id):
                continue
            if entry.usage:
                used.append(entry.usage)
            if entry.report:
                await transaction.emit(entry.report)
        if used:
            await transaction.emit(usage_reported(used))
