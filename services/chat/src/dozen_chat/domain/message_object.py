"""Chat completions, as messages of Anthropic's Messages API."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

_STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}


class _PromptDetails(Struct):
    cached_tokens: int | None = None
    cache_write_tokens: int | None = None


class ChatUsage(Struct):
    """The tokens of a chat completion."""

    prompt_tokens: int = 0
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None

    def translated(self) -> dict[str, int]:
        """Give them in Anthropic's words, where a prompt's tokens are without those of the cache."""
        details = self.prompt_tokens_details or _PromptDetails()
        read, written = details.cached_tokens or 0, details.cache_write_tokens or 0
        return {
            "input_tokens": max(0, self.prompt_tokens - read - written),
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": read,
            "output_tokens": self.completion_tokens or 0,
        }


class Function(Struct):
    """A function to call, or a piece of that."""

    name: str | None = None
    arguments: str | None = None


class ToolCall(Struct):
    """A tool call, or a piece of one."""

    function: Function = msgspec.field(default_factory=Function)
    id: str | None = None
    index: int = 0


class ThinkingBlock(Struct):
    """A thought as the provider signed it."""

    type: str = ""
    thinking: str = ""
    signature: str = ""
    data: str = ""


class Said(Struct):
    """What was said, or a piece of it; servers have two names for what was thought before."""

    content: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking_blocks: list[ThinkingBlock] | None = None
    tool_calls: list[ToolCall] | None = None

    @property
    def thought(self) -> str:
        """Give what was thought."""
        return self.reasoning_content or self.reasoning or ""

    @property
    def text(self) -> str:
        """Give what was said."""
        return self.content or self.refusal or ""


class Choice(Struct):
    """An answer: whole as `message`, in pieces as `delta`."""

    delta: Said | None = None
    message: Said | None = None
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    """At vLLM the stop sequence that was met, or the token."""


class ChatError(Struct):
    """OpenAI's error object."""

    message: str = ""
    type: str | None = None
    code: str | None = None


class Completion(Struct):
    """A whole chat completion, or an event of one."""

    id: str = ""
    model: str = ""
    choices: list[Choice] = msgspec.field(default_factory=list)
    usage: ChatUsage | None = None
    error: ChatError | None = None


read_completion = msgspec.json.Decoder(Completion).decode


def message_id(chat_id: str) -> str:
    """Give the id of the message that a chat completion is."""
    return f"msg_{chat_id.removeprefix('chatcmpl-')}"


def stopping(
    reason: str, stop: str | int | None, stop_sequences: Sequence[str] | None
) -> dict[str, str | None]:
    """Say why a message ended."""
    if isinstance(stop, str) and stop in (stop_sequences or ()):
        return {"stop_reason": "stop_sequence", "stop_sequence": stop}
    return {"stop_reason": _STOP_REASONS.get(reason, "end_turn"), "stop_sequence": None}


def message_object(text: bytes, *, stop_sequences: Sequence[str] | None, tells_thoughts: bool) -> bytes:
    """Give the message for a whole chat completion; raise `ValueError` where that is none."""
    completion = read_completion(text)
    if not completion.choices or completion.choices[0].message is None:
        raise ValueError("a chat completion without a choice")
    choice, said = completion.choices[0], completion.choices[0].message
    content: list[dict[str, Any]] = [*_thoughts(said)] if tells_thoughts else []
    if said.text:
        content.append({"type": "text", "text": said.text})
    content += [_tool_use(call) for call in said.tool_calls or ()]
    return msgspec.json.encode(
        {
            "id": message_id(completion.id),
            "type": "message",
            "role": "assistant",
            "model": completion.model,
            "content": content,
            **stopping(choice.finish_reason or "", choice.stop_reason, stop_sequences),
            "usage": (completion.usage or ChatUsage()).translated(),
        }
    )


def thinking_block(block: ThinkingBlock) -> dict[str, Any]:
    """Give a thought as the provider signed it."""
    if block.type == "redacted_thinking":
        return {"type": block.type, "data": block.data}
    return {"type": "thinking", "thinking": block.thinking, "signature": block.signature}


def _thoughts(said: Said) -> list[dict[str, Any]]:
    if said.thinking_blocks:
        return [thinking_block(block) for block in said.thinking_blocks]
    return [{"type": "thinking", "thinking": said.thought, "signature": ""}] if said.thought else []


def _tool_use(call: ToolCall) -> dict[str, Any]:
    arguments = (call.function.arguments or "").strip().encode() or b"{}"
    try:
        msgspec.json.decode(arguments, type=dict[str, Raw])
    except msgspec.MsgspecError:  # the model's mistake, which the client should see
        arguments = msgspec.json.encode({"arguments": call.function.arguments})
    return {
        "type": "tool_use",
        "id": call.id or "",
        "name": call.function.name or "",
        "input": Raw(arguments),
    }
