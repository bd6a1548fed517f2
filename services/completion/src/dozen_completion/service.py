"""The use cases of the completion service."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from google.protobuf.message import Message

from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.admission import Admission
from dozen_inference.generation import Answer, Generator
from dozen_inference.hold import most_tokens
from dozen_inference.outcome import Outcome
from dozen_inference.request import prepare
from dozen_inference.usage import usage_reported

PATH = "/v1/completions"
OPERATION = f"POST {PATH}"

_DELETION_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class Entry:
    """What came of a request."""

    usage: UsageRecord | None
    """What is reported to credits."""
    outcome: Outcome | None = None
    """Of a request that was sent upstream."""


class Transaction(Protocol):
    """What is written together."""

    async def record(self, outcomes: Sequence[Outcome]) -> None:
        """Log what came of requests."""
        ...

    async def emit(self, event: Message) -> None:
        """Publish an event."""
        ...


class Requests(Protocol):
    """The log of requests."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Write several things together."""
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
    """Write the entries of many requests in one transaction."""
    async with requests.transaction() as transaction:
        if outcomes := [entry.outcome for entry in entries if entry.outcome]:
            await transaction.record(outcomes)
        if used := [entry.usage for entry in entries if entry.usage]:
            await transaction.emit(usage_reported(used))


class CompletionService:
    """Completes texts."""

    def __init__(self, generator: Generator, requests: Requests, log: Log, *, most_choices: int) -> None:
        self._generator = generator
        self._requests = requests
        self._log = log
        self._most_choices = most_choices

    def complete(self, admitted: Admission, body: bytes) -> Answer:
        """Answer a request body of `POST /v1/completions`."""
        request = prepare(body, "prompt", most_choices=self._most_choices, most_tokens=most_tokens(admitted))
        return self._generator.answer(admitted, request, self._settle)

    async def forget(self, older_than: timedelta) -> None:
        """Drop log entries of that age."""
        while await self._requests.forget(older_than, _DELETION_BATCH):
            pass

    async def _settle(self, outcome: Outcome) -> None:
        await self._log.put(Entry(outcome.usage_record(), outcome))
