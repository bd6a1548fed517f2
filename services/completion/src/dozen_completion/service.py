"""The use cases of the completion service."""

from datetime import timedelta
from typing import Protocol

from dozen_chassis.admission import Admission
from dozen_inference.generation import Answer, Generator
from dozen_inference.outcome import Outcome
from dozen_inference.request import prepare

PATH = "/v1/completions"
OPERATION = f"POST {PATH}"

_DELETION_BATCH = 10_000


class Requests(Protocol):
    """The log of requests."""

    async def forget(self, older_than: timedelta, limit: int) -> int:
        """Drop log entries of that age; return how many."""
        ...


class Log(Protocol):
    """Where it is kept what came of requests."""

    async def put(self, outcome: Outcome) -> None:
        """Make an outcome durable."""
        ...


class CompletionService:
    """Completes texts."""

    def __init__(self, generator: Generator, requests: Requests, log: Log, *, most_choices: int) -> None:
        self._generator = generator
        self._requests = requests
        self._log = log
        self._most_choices = most_choices

    def complete(self, admitted: Admission, body: bytes) -> Answer:
        """Answer a request body of `POST /v1/completions`."""
        request = prepare(body, "prompt", most_choices=self._most_choices)
        return self._generator.answer(admitted, request, self._log.put)

    async def forget(self, older_than: timedelta) -> None:
        """Drop log entries of that age."""
        while await self._requests.forget(older_than, _DELETION_BATCH):
            pass
