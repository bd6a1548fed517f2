"""The way of a completion: read, answered from the cache or by a deployment, and filtered."""

from dozen_chassis.admission import Admission
from dozen_inference.cache import ResponseCache, wish
from dozen_inference.filter import ContentFilter, is_filtered
from dozen_inference.generation import Answer, Generator
from dozen_inference.hold import is_capped, most_tokens
from dozen_inference.outcome import Settle
from dozen_inference.request import Prompt, prepare


class Completions:
    """Answers requests of one kind for clients that wait."""

    def __init__(
        self,
        generator: Generator,
        cache: ResponseCache,
        content_filter: ContentFilter,
        prompt: Prompt,
        *,
        most_choices: int,
    ) -> None:
        """Read the prompt in the field `prompt` of a body."""
        self._generator = generator
        self._cache = cache
        self._filter = content_filter
        self._prompt = prompt
        self._most_choices = most_choices

    def answer(self, admission: Admission, body: bytes, cache: str, settle: Settle) -> Answer:
        """Answer a request body; `cache` is what the client wants of it, `settle` as a generator has it."""
        request = prepare(
            body,
            self._prompt,
            most_choices=self._most_choices,
            most_tokens=most_tokens(admission),
            is_capped=is_capped(admission),
        )
        answer = self._generator.answer(admission, request, settle)
        if is_filtered(admission):
            answer = self._filter.answer(admission, body, answer)
        return self._cache.answer(admission, body, request, wish(admission, cache), answer, settle)
