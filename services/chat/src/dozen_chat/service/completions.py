"""Chat completions for clients that wait."""

from datetime import timedelta

from dozen_chassis.admission import Admission
from dozen_chat.service.log import Entry, Log, Requests
from dozen_inference.completions import Completions
from dozen_inference.generation import Answer
from dozen_inference.outcome import Outcome

PATH = "/v1/chat/completions"
OPERATION = f"POST {PATH}"

_DELETION_BATCH = 10_000


class ChatService:
    """Answers chat completions for clients that wait."""

    def __init__(self, completions: Completions, requests: Requests, log: Log) -> None:
        self._completions = completions
        self._requests = requests
        self._log = log

    def complete(self, admitted: Admission, body: bytes, cache: str = "") -> Answer:
        """Answer a request body of `POST /v1/chat/completions`; `cache` is what the client wants of it."""
        return self._completions.answer(admitted, body, cache, self._settle)

    async def forget(self, older_than: timedelta) -> None:
        """Drop log entries of that age."""
        while await self._requests.forget(older_than, _DELETION_BATCH):
            pass

    async def _settle(self, outcome: Outcome) -> None:
        await self._log.put(Entry(outcome.usage_record(), outcome))
