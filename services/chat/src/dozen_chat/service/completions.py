"""Chat completions for clients that wait."""

from datetime import timedelta

from dozen_chassis.admission import Admission
from dozen_chat.service.log import Entry, Log, Requests
from dozen_inference.cache import ResponseCache, wish
from dozen_inference.filter import ContentFilter, is_filtered
from dozen_inference.generation import Answer, Generator
from dozen_inference.hold import is_capped, most_tokens
from dozen_inference.outcome import Outcome
from dozen_inference.request import prepare

PATH = "/v1/chat/completions"
OPERATION = f"POST {PATH}"

_DELETION_BATCH = 10_000


class ChatService:
    """Answers chat completions for clients that wait."""

    def __init__(
        self,
        generator: Generator,
        requests: Requests,
        log: Log,
        cache: ResponseCache,
        content_filter: ContentFilter,
        *,
        most_choices: int,
    ) -> None:
        self._generator = generator
        self._requests = requests
        self._log = log
        self._cache = cache
        self._filter = content_filter
        self._most_choices = most_choices

    def complete(self, admitted: Admission, body: bytes, cache: str = "") -> Answer:
        """Answer a request body of `POST /v1/chat/completions`; `cache` is what the client wants of it."""
        request = prepare(
            body,
            "messages",
            most_choices=self._most_choices,
            most_tokens=most_tokens(admitted),
            is_capped=is_capped(admitted),
        )
        answer = self._generator.answer(admitted, request, self._settle)
        if is_filtered(admitted):
            answer = self._filter.answer(admitted, body, answer)
        return self._cache.answer(admitted, body, request, wish(admitted, cache), answer, self._settle)

    async def forget(self, older_than: timedelta) -> None:
        """Drop log entries of that age."""
        while await self._requests.forget(older_than, _DELETION_BATCH):
            pass

    async def _settle(self, outcome: Outcome) -> None:
        await self._log.put(Entry(outcome.usage_record(), outcome))
