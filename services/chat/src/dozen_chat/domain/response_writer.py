"""A response as it is written: from the pieces of a chat completion to events, and to what is kept."""

from typing import Literal, TypeAlias

from dozen_chat.domain import response_events as events
from dozen_chat.domain.chat_answer import ChatAnswer, ChatError, Said, TokenLogprob
from dozen_chat.domain.response_object import IncompleteDetails, Response, ResponseError, response_usage
from dozen_chat.domain.response_output import OutputWriter

_Reason: TypeAlias = Literal["max_output_tokens", "content_filter"]

_UNFINISHED: dict[str, _Reason] = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ERROR_CODES = frozenset({"server_error", "rate_limit_exceeded", "invalid_prompt"})


class ResponseWriter:
    """Writes one response; what its methods return is to be sent where the client wants a stream."""

    def __init__(self, response: Response, *, logprobs: bool) -> None:
        self.response = response
        self._output = OutputWriter(response.output, response.id.partition("_")[2])
        self._logprobs = logprobs
        self._finish_reason = ""

    @property
    def is_finished(self) -> bool:
        """Whether the model has said how its answer ended."""
        return bool(self._finish_reason)

    def begin(self) -> bytes:
        """Say that the response has begun."""
        self._output.emit(events.Created(response=self.response))
        self._output.emit(events.InProgress(response=self.response))
        return self._output.flush()

    def take(self, answer: ChatAnswer) -> bytes:
        """Go on with a piece of the answer, or with all of it."""
        if answer.usage is not None:
            self.response.usage = response_usage(answer.usage)
        for choice in answer.choices[:1]:  # more than one cannot be asked for
            said = choice.delta or choice.message
            if said is not None:
                logprobs = choice.logprobs.content if choice.logprobs and self._logprobs else None
                self._take(said, logprobs or [])
            self._finish_reason = choice.finish_reason or self._finish_reason
        return self._output.flush()

    def complete(self, now: int) -> bytes:
        """End the response as the model ended it."""
        response = self.response
        reason = _UNFINISHED.get(self._finish_reason)
        if not response.output and reason is None:
            self._output.say("text", "", [])
        self._output.close("completed" if reason is None else "incomplete")
        if reason is None:
            response.status, response.completed_at = "completed", now
            self._output.emit(events.Completed(response=response))
        else:
            response.status, response.incomplete_details = "incomplete", IncompleteDetails(reason)
            self._output.emit(events.Incomplete(response=response))
        return self._output.flush()

    def fail(self, error: ChatError) -> bytes:
        """End the response where the answer cannot be completed."""
        self._output.close("incomplete")
        self.response.status = "failed"
        code = error.code if error.code in _ERROR_CODES else None
        self.response.error = ResponseError(code or "server_error", error.message)
        self._output.emit(events.Error(code=error.code, message=error.message, param=error.param))
        self._output.emit(events.Failed(response=self.response))
        return self._output.flush()

    def cancel(self) -> None:
        """End the response where nobody waits for it any more."""
        self._output.close("incomplete")
        self.response.status = "cancelled"

    def _take(self, said: Said, logprobs: list[TokenLogprob]) -> None:
        if thought := said.reasoning_content or said.reasoning:
            self._output.say("reasoning", thought, [])
        if said.content:
            self._output.say("text", said.content, logprobs)
        if said.refusal:
            self._output.say("refusal", said.refusal, [])
        for position, call in enumerate(said.tool_calls or ()):
            self._output.call(call, position)
