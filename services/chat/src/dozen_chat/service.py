"""The use cases of the chat service."""

import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from google.protobuf.message import Message

from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen.jobs.v1.jobs_events_pb2 import TaskReported, TaskRequested
from dozen.jobs.v1.jobs_pb2 import (
    TASK_STATE_FAILED,
    TASK_STATE_RUNNING,
    TASK_STATE_SUCCEEDED,
    TaskError,
    TaskState,
)
from dozen_chassis import admission
from dozen_chassis.admission import Admission
from dozen_chassis.errors import TRANSIENT, ServiceError
from dozen_chassis.events import Delivery
from dozen_chat.errors import UnknownTaskType
from dozen_inference.departure import ClientLeft
from dozen_inference.generation import Answer, Generator
from dozen_inference.hold import is_priced, most_tokens
from dozen_inference.outcome import Outcome
from dozen_inference.request import prepare
from dozen_inference.usage import usage_record, usage_reported

PATH = "/v1/chat/completions"
OPERATION = f"POST {PATH}"
TASK_TYPE = "chat.completions"

_DELETION_BATCH = 10_000


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

    async def record(self, outcomes: Sequence[Outcome]) -> None:
        """Log what came of requests."""
        ...

    async def emit(self, event: Message) -> None:
        """Publish an event."""
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


async def write(requests: Requests, entries: list[Entry]) -> None:
    """Write the entries of many requests in one transaction; what a task used and came to, once."""
    async with requests.transaction() as transaction:
        if outcomes := [entry.outcome for entry in entries if entry.outcome]:
            await transaction.record(outcomes)
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


class ChatService:
    """Answers chat completions for clients that wait."""

    def __init__(self, generator: Generator, requests: Requests, log: Log, *, most_choices: int) -> None:
        self._generator = generator
        self._requests = requests
        self._log = log
        self._most_choices = most_choices

    def complete(self, admitted: Admission, body: bytes) -> Answer:
        """Answer a request body of `POST /v1/chat/completions`."""
        request = prepare(
            body, "messages", most_choices=self._most_choices, most_tokens=most_tokens(admitted)
        )
        return self._generator.answer(admitted, request, self._settle)

    async def forget(self, older_than: timedelta) -> None:
        """Drop log entries of that age."""
        while await self._requests.forget(older_than, _DELETION_BATCH):
            pass

    async def _settle(self, outcome: Outcome) -> None:
        await self._log.put(Entry(outcome.usage_record(), outcome))


class ChatWorker:
    """Answers chat completions that were queued as tasks."""

    def __init__(
        self, generator: Generator, requests: Requests, log: Log, *, admission_key: bytes, most_choices: int
    ) -> None:
        self._generator = generator
        self._requests = requests
        self._log = log
        self._admission_key = admission_key
        self._most_choices = most_choices

    async def work(self, requested: TaskRequested, delivery: Delivery) -> None:
        """Do a task and report on it; raise where it should be tried again."""
        if await self._requests.is_handled(delivery.id):
            return
        task = requested.task
        admitted: Admission | None = None
        try:
            admitted = admission.verify(
                requested.admission.headers, OPERATION, self._admission_key, time.time()
            )
            if task.type != TASK_TYPE:
                raise UnknownTaskType(f"The chat service does not do tasks of the type '{task.type}'.")
            request = prepare(
                task.parameters,
                "messages",
                most_choices=self._most_choices,
                most_tokens=most_tokens(admitted),
                may_stream=False,
            )
        except ServiceError as error:
            unused = usage_record(admitted, {}) if admitted and is_priced(admitted) else None
            report = _report(task.id, delivery, TASK_STATE_FAILED, error=error)
            await self._log.put(Entry(unused, report=report, delivery_id=delivery.id))
            return
        await self._requests.emit(_report(task.id, delivery, TASK_STATE_RUNNING))
        retries_left = delivery.attempt <= task.max_retries
        final: TaskReported | None = None

        async def settle(outcome: Outcome) -> None:
            nonlocal final
            final = _final_report(task.id, delivery, outcome, retries_left)
            if final is None:
                await self._log.put(Entry(None, outcome))
            else:
                await self._log.put(Entry(outcome.usage_record(), outcome, final, delivery.id))

        answer = self._generator.answer(admitted, request, settle, seconds=task.timeout_seconds or None)
        try:
            async for _ in answer.chunks:
                pass
        except ServiceError:
            if final is None:
                raise


def _final_report(
    task_id: str, delivery: Delivery, outcome: Outcome, retries_left: bool
) -> TaskReported | None:
    """Say how a task ended, unless it is going to be tried again."""
    error = outcome.error
    if error is None:
        return _report(task_id, delivery, TASK_STATE_SUCCEEDED, result=outcome.answer)
    if isinstance(error, ClientLeft) or (retries_left and error.status in TRANSIENT):
        return None
    return _report(task_id, delivery, TASK_STATE_FAILED, error=error)


def _report(
    task_id: str,
    delivery: Delivery,
    state: "TaskState.ValueType",
    *,
    result: bytes = b"",
    error: ServiceError | None = None,
) -> TaskReported:
    report = TaskReported(task_id=task_id, state=state, attempt=delivery.attempt, result=result)
    if error is not None:
        report.error.CopyFrom(TaskError(type=error.http.type, code=error.code or "", message=error.message))
    report.reported_at.GetCurrentTime()
    return report
