"""The use cases of the completion service."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol

from google.protobuf.message import Message

from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.admission import Admission
from dozen_inference.completions import Completions
from dozen_inference.generation import Answer
from dozen_inference.outcome import Outcome
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


class Requests(Protocol):
    """The log of requests."""

    async def emit(self, event: Message, *, may_merge: bool = False) -> None:
        """Publish an event; one that `may_merge` a little later, as one with others."""
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
    """Write the entries of many requests: what they used, in one statement.

    What came of a request goes into the history, which is written later and need not be complete.
    """
    for entry in entries:
        if entry.outcome is not None:
            history(entry.outcome)
    if used := [entry.usage for entry in entries if entry.usage]:
        await requests.emit(usage_reported(used), may_merge=True)


class CompletionService:
    """Completes texts."""

    def __init__(self, completions: Completions, requests: Requests, log: Log) -> None:
        self._completions = completions
        self._requests = requests
        self._log = log

    def complete(self, admitted: Admission, body: bytes, cache: str = "") -> Answer:
        """Answer a request body of `POST /v1/completions`; `cache` is what the client wants of it."""
        return self._completions.answer(admitted, body, cache, self._settle)

    async def forget(self, older_than: timedelta) -> None:
        """Drop log entries of that age."""
        while await self._requests.forget(older_than, _DELETION_BATCH):
            pass

    async def _settle(self, outcome: Outcome) -> None:
        await self._log.put(Entry(outcome.usage_record(), outcome))
