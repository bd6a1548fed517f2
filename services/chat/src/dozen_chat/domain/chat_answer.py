"""Chat completions as far as a response is made of them."""

from collections.abc import Sequence
from typing import Any

import msgspec


class Details(msgspec.Struct):
    """What a count of tokens is made up of."""

    cached_tokens: int | None = None
    cache_write_tokens: int | None = None
    reasoning_tokens: int | None = None


class ChatUsage(msgspec.Struct):
    """The tokens of a chat completion."""

    prompt_tokens: int = 0
    completion_tokens: int | None = None
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Details | None = None


class Function(msgspec.Struct):
    """A function to call, or a piece of that."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct):
    """A tool call, or a piece of one; only pieces have an index."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class TokenLogprob(msgspec.Struct):
    """How likely a token was."""

    token: str = ""
    logprob: float = 0.0
    bytes: list[int] | None = None
    top_logprobs: list["TokenLogprob"] | None = None


class Logprobs(msgspec.Struct):
    """How likely the tokens were."""

    content: list[TokenLogprob] | None = None


class Said(msgspec.Struct):
    """What was said, or a piece of it; servers have two names for what was thought before."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(msgspec.Struct):
    """An answer: whole as `message`, in pieces as `delta`."""

    delta: Said | None = None
    message: Said | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class ChatError(msgspec.Struct):
    """OpenAI's error object."""

    message: str = "The server had an error while processing your request."
    code: str | None = None
    param: str | None = None


class ChatAnswer(msgspec.Struct):
    """A whole chat completion, or an event of one."""

    choices: list[Choice] = msgspec.field(default_factory=list)
    usage: ChatUsage | None = None
    error: ChatError | None = None


END = ChatAnswer()
"""What the event is read as that ends a complete stream."""

_decoder = msgspec.json.Decoder(ChatAnswer)


def read_answer(text: bytes) -> ChatAnswer:
    """Read a whole chat completion; raise `ValueError` where it is none."""
    return _decoder.decode(text)


def read_event(event: bytes) -> ChatAnswer | None:
    """Read an event of a streamed one; None where it says nothing."""
    start = event.find(b"data:")
    if start < 0:
        return None
    data = event[start + 5 :].strip()
    if data == b"[DONE]":
        return END
    return None if data == b"null" else _decoder.decode(data)


def written_logprobs(tokens: Sequence[TokenLogprob], *, bytes: bool) -> list[dict[str, Any]]:
    """Write how likely tokens were as the Responses API does: texts have their bytes, deltas have not."""
    written = []
    for token in tokens:
        alternatives = [_written(other, bytes) for other in token.top_logprobs or ()]
        written.append({**_written(token, bytes), "top_logprobs": alternatives})
    return written


def _written(token: TokenLogprob, bytes: bool) -> dict[str, Any]:
    fields = {"token": token.token, "logprob": token.logprob}
    if bytes:
        fields["bytes"] = token.bytes if token.bytes is not None else list(token.token.encode())
    return fields
