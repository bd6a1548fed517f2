"""Answers in OpenAI's form: whole completions, and the chunks of streamed ones."""

from typing import Any

import msgspec
from msgspec import Struct

from dozen_inference.streams import DONE


class FunctionCall(Struct, omit_defaults=True):
    """A function and its arguments, or a further piece of them."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(Struct, omit_defaults=True):
    """A tool call, or a piece of one."""

    function: FunctionCall
    id: str | None = None
    type: str | None = None
    index: int | None = None
    """In chunks: which of the calls this is a piece of."""
    extra_content: Any = None
    """What a provider wants back with the call, by the provider's name."""


class Delta(Struct, omit_defaults=True):
    """What a chunk adds to a message."""

    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[Any] | None = None
    """Thoughts as the provider signed them, which it may want back."""
    tool_calls: list[ToolCall] | None = None


class Message(Struct, omit_defaults=True):
    """A whole message."""

    content: str | None
    role: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[Any] | None = None
    tool_calls: list[ToolCall] | None = None


class Choice(Struct, omit_defaults=True):
    """A whole choice."""

    message: Message
    finish_reason: str
    index: int = -1
    stop_reason: str | None = None
    """The stop sequence that was met: vLLM's word for it."""
    logprobs: Any = None


class PromptDetails(Struct):
    """Of the tokens of the prompt."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class CompletionDetails(Struct):
    """Of the tokens of the answer."""

    reasoning_tokens: int = 0


class Usage(Struct):
    """What an answer used; a prompt's tokens include the cached ones, an answer's the reasoning."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    completion_tokens_details: CompletionDetails


def usage(prompt: int, completion: int, *, cached: int = 0, written: int = 0, reasoning: int = 0) -> Usage:
    """Say what an answer used."""
    return Usage(
        prompt,
        completion,
        prompt + completion,
        PromptDetails(cached, written),
        CompletionDetails(reasoning),
    )


class _Completion(Struct):
    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    object: str = "chat.completion"


_encode = msgspec.json.Encoder().encode


def completion(identifier: str, created: int, model: str, choices: list[Choice], used: Usage) -> bytes:
    """Give a whole completion."""
    for choice in choices:
        choice.message.role = "assistant"
    return _encode(_Completion(f"chatcmpl-{identifier}", created, model, choices, used))


class Chunks:
    """Writes the chunks of one completion; what they share is encoded once."""

    def __init__(self, identifier: str, created: int, model: str) -> None:
        self._head = (
            b'data: {"id":' + _encode(f"chatcmpl-{identifier}") + b',"object":"chat.completion.chunk",'
            b'"created":' + _encode(created) + b',"model":' + _encode(model) + b',"choices":['
        )

    def delta(self, delta: Delta, index: int = 0, *, logprobs: Any = None) -> bytes:
        """Give the chunk that adds something to a choice."""
        return b'%s{"index":%d,"delta":%s,"logprobs":%s,"finish_reason":null}],"usage":null}\n\n' % (
            self._head, index, _encode(delta), b"null" if logprobs is None else _encode(logprobs)
        )  # fmt: skip

    def finish(self, reason: str, index: int = 0, *, stop: str | None = None) -> bytes:
        """Give the chunk that ends a choice."""
        stop_reason = b',"stop_reason":' + _encode(stop) if stop else b""
        return b'%s{"index":%d,"delta":{},"logprobs":null,"finish_reason":%s%s}],"usage":null}\n\n' % (
            self._head, index, _encode(reason), stop_reason
        )  # fmt: skip

    def done(self, used: Usage) -> bytes:
        """Give the chunk that says what was used, and the end."""
        return b'%s],"usage":%s}\n\n%s' % (self._head, _encode(used), DONE)
