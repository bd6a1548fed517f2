"""Streamed answers of Gemini's API, as the chunks of a chat completion."""

from collections.abc import Callable

from dozen_inference.formats.answers import Chunks, Delta
from dozen_inference.formats.events import EventData
from dozen_inference.formats.gemini.answer import Answer, Candidate, Usage, read_answer, tool_call
from dozen_inference.upstream import UpstreamFailed


class GeminiStream:
    """Translates one stream of one candidate; each of its events is an answer that adds to those before."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._events = EventData()
        self._chunks: Chunks | None = None
        self._identifier = ""
        self._usage: Usage | None = None
        self._calls = 0
        self._has_finished = False
        self._has_ended = False

    def feed(self, chunk: bytes) -> bytes:
        """Give the events of OpenAI's stream that a chunk completes."""
        return b"".join([self._take(read_answer(data)) for data in self._events.feed(chunk)])

    def end(self) -> bytes:
        """Give the end where it was not sure before; raise where the answer did not finish."""
        if not self._has_finished or self._chunks is None:
            raise UpstreamFailed()
        return b"" if self._has_ended else self._done(self._chunks)

    def _take(self, answer: Answer) -> bytes:
        given = []
        if self._has_ended:
            return b""
        if self._chunks is None:
            self._identifier = answer.response_id
            self._chunks = Chunks(answer.response_id, int(self._now()), answer.model_version)
            given.append(self._chunks.delta(Delta(role="assistant", content="")))
        given += [self._extend(candidate, self._chunks) for candidate in answer.candidates]
        self._usage = answer.usage_metadata or self._usage
        # Nothing says that an event is the last one; of one that finishes and tells the usage it is so.
        if self._has_finished and answer.usage_metadata is not None:
            given.append(self._done(self._chunks))
        return b"".join(given)

    def _extend(self, candidate: Candidate, chunks: Chunks) -> bytes:
        deltas = []
        for part in candidate.content.parts:
            if part.function_call is not None:
                index = self._calls
                call = tool_call(part, part.function_call, self._identifier, index, index=index)
                deltas.append(Delta(tool_calls=[call]))
                self._calls += 1
            elif part.thought and part.text:
                deltas.append(Delta(reasoning_content=part.text))
            elif part.text:
                deltas.append(Delta(content=part.text))
        logprobs = candidate.logprobs_result.translated() if candidate.logprobs_result else None
        given = []
        for delta in deltas:
            given.append(chunks.delta(delta, logprobs=logprobs))
            logprobs = None
        if candidate.finish_reason:
            self._has_finished = True
            given.append(chunks.finish(candidate.finish(has_calls=self._calls > 0)))
        return b"".join(given)

    def _done(self, chunks: Chunks) -> bytes:
        self._has_ended = True
        return chunks.done((self._usage or Usage()).translated())
