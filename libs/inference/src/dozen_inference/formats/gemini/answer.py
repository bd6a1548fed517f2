"""What Gemini's API answers, whole or in the events of a stream, in OpenAI's form."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from dozen_inference.formats import answers
from dozen_inference.formats.answers import Choice, Message, ToolCall
from dozen_inference.formats.gemini.errors import Problem, translated
from dozen_inference.formats.refusals import filtered
from dozen_inference.upstream import UpstreamFailed

# The model gave nothing that could be told: another attempt may do better.
_FAILURES = {
    "MALFORMED_FUNCTION_CALL",
    "MALFORMED_RESPONSE",
    "UNEXPECTED_TOOL_CALL",
    "MISSING_THOUGHT_SIGNATURE",
}
_FILTERED = {
    "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "IMAGE_SAFETY",
    "ESCALATION", "IMAGE_PROHIBITED_CONTENT", "IMAGE_RECITATION", "PUP_LIMITED_DISABLED", "MODEL_ARMOR",
}  # fmt: skip


class FunctionCall(Struct):
    """A call, with all its arguments."""

    name: str = ""
    args: Raw = Raw(b"{}")
    id: str = ""


class Part(Struct, rename="camel"):
    """A piece of an answer; one without any of these is of no use here."""

    text: str = ""
    thought: bool = False
    function_call: FunctionCall | None = None
    thought_signature: str = ""


class Content(Struct):
    """What the model said."""

    parts: list[Part] = msgspec.field(default_factory=list)


class _Token(Struct, rename="camel"):
    token: str = ""
    log_probability: float = 0.0


class _TopTokens(Struct):
    candidates: list[_Token] = msgspec.field(default_factory=list)


class Logprobs(Struct, rename="camel"):
    """How probable the tokens were."""

    chosen_candidates: list[_Token] = msgspec.field(default_factory=list)
    top_candidates: list[_TopTokens] = msgspec.field(default_factory=list)

    def translated(self) -> dict[str, Any]:
        """Give them in OpenAI's form."""
        found = []
        for index, chosen in enumerate(self.chosen_candidates):
            top = self.top_candidates[index].candidates if index < len(self.top_candidates) else []
            found.append({**_logprob(chosen), "top_logprobs": [_logprob(token) for token in top]})
        return {"content": found, "refusal": None}


class Candidate(Struct, rename="camel"):
    """A choice, or what is added to one."""

    content: Content = msgspec.field(default_factory=Content)
    finish_reason: str | None = None
    index: int = 0
    logprobs_result: Logprobs | None = None

    def finish(self, *, has_calls: bool) -> str:
        """Give why it ended, in OpenAI's words; raise where it failed."""
        reason = self.finish_reason or "STOP"
        if reason in _FAILURES:
            raise UpstreamFailed()
        if reason in _FILTERED:
            return "content_filter"
        if reason == "MAX_TOKENS":
            return "length"
        return "tool_calls" if has_calls else "stop"


class _Feedback(Struct, rename="camel"):
    block_reason: str | None = None
    block_reason_message: str | None = None


class Usage(Struct, rename="camel"):
    """What an answer used by now."""

    prompt_token_count: int = 0
    tool_use_prompt_token_count: int = 0
    candidates_token_count: int = 0
    thoughts_token_count: int = 0
    cached_content_token_count: int = 0

    def translated(self) -> answers.Usage:
        """Give it in OpenAI's form, where an answer's tokens include the thoughts."""
        return answers.usage(
            self.prompt_token_count + self.tool_use_prompt_token_count,
            self.candidates_token_count + self.thoughts_token_count,
            cached=self.cached_content_token_count,
            reasoning=self.thoughts_token_count,
        )


class Answer(Struct, rename="camel"):
    """A whole answer, or an event of a streamed one."""

    candidates: list[Candidate] = msgspec.field(default_factory=list)
    prompt_feedback: _Feedback | None = None
    usage_metadata: Usage | None = None
    model_version: str = ""
    response_id: str = ""
    error: Problem | None = None


_decode = msgspec.json.Decoder(Answer).decode


def read_answer(data: bytes) -> Answer:
    """Read an answer; raise where it is an error, or where the prompt was refused."""
    try:
        answer = _decode(data)
    except msgspec.MsgspecError as error:
        raise UpstreamFailed() from error
    if answer.error is not None:
        raise translated(answer.error)
    feedback = answer.prompt_feedback
    if feedback is not None and feedback.block_reason and not answer.candidates:
        told = (
            feedback.block_reason_message
            or f"The provider's filter refused the prompt ({feedback.block_reason})."
        )
        raise filtered(told)
    return answer


def tool_call(part: Part, call: FunctionCall, identifier: str, number: int, *, index: int | None) -> ToolCall:
    """Give a call in OpenAI's form; one without an id gets one that is stable."""
    function = answers.FunctionCall(call.name, bytes(call.args).decode())
    extra = {"google": {"thought_signature": part.thought_signature}} if part.thought_signature else None
    return ToolCall(function, call.id or f"call_{identifier}_{number}", "function", index, extra)


def completion(body: bytes, now: float) -> bytes:
    """Translate a whole answer."""
    answer = read_answer(body)
    if not answer.candidates:
        raise UpstreamFailed()
    identifier, number = answer.response_id, 0
    choices = []
    for candidate in answer.candidates:
        texts: list[str] = []
        thoughts: list[str] = []
        calls: list[ToolCall] = []
        for part in candidate.content.parts:
            if part.function_call is not None:
                calls.append(tool_call(part, part.function_call, identifier, number, index=None))
                number += 1
            else:
                (thoughts if part.thought else texts).append(part.text)
        message = Message(
            "".join(texts) if texts or not calls else None,
            reasoning_content="".join(thoughts) or None,
            tool_calls=calls or None,
        )
        logprobs = candidate.logprobs_result.translated() if candidate.logprobs_result else None
        reason = candidate.finish(has_calls=bool(calls))
        choices.append(Choice(message, reason, candidate.index, logprobs=logprobs))
    used = (answer.usage_metadata or Usage()).translated()
    return answers.completion(identifier, int(now), answer.model_version, choices, used)


def _logprob(token: _Token) -> dict[str, Any]:
    return {"token": token.token, "logprob": token.log_probability, "bytes": [*token.token.encode()]}
