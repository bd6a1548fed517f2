"""Whole answers of Anthropic's Messages API, as chat completions; and what streamed ones share with them."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from dozen_inference.formats import answers
from dozen_inference.formats.answers import Choice, FunctionCall, Message, ToolCall
from dozen_inference.formats.anthropic.errors import read_error

# What is not listed is the end of what the model had to say.
FINISH_REASONS = {
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class _OutputDetails(Struct):
    thinking_tokens: int = 0


class Usage(Struct):
    """What an answer used; in a stream, what is told later replaces what was told before."""

    input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    output_tokens: int | None = None
    output_tokens_details: _OutputDetails | None = None

    def update(self, later: "Usage") -> None:
        """Take what a later event tells."""
        for name in self.__struct_fields__:
            if (value := getattr(later, name)) is not None:
                setattr(self, name, value)

    def translated(self) -> answers.Usage:
        """Give it in OpenAI's form, where a prompt's tokens include those that were or will be cached."""
        written, cached = self.cache_creation_input_tokens or 0, self.cache_read_input_tokens or 0
        details = self.output_tokens_details
        return answers.usage(
            (self.input_tokens or 0) + written + cached,
            self.output_tokens or 0,
            cached=cached,
            written=written,
            reasoning=details.thinking_tokens if details else 0,
        )


class Block(Struct):
    """A piece of an answer; those of other types than these fields are for are of no use here."""

    type: str
    text: str = ""
    thinking: str = ""
    signature: str = ""
    data: str = ""
    id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")

    def thought(self) -> dict[str, Any]:
        """Give a thought as it has to come back."""
        if self.type == "redacted_thinking":
            return {"type": self.type, "data": self.data}
        return {"type": self.type, "thinking": self.thinking, "signature": self.signature}


class Answer(Struct):
    """A whole answer, or the beginning of a streamed one."""

    id: str
    model: str
    content: list[Block]
    stop_reason: str | None = None
    stop_sequence: str | None = None
    usage: Usage = msgspec.field(default_factory=Usage)

    @property
    def identifier(self) -> str:
        """Give the id without the word for what it is of."""
        return self.id.removeprefix("msg_")


class _Typed(Answer, tag_field="type", tag="message"):
    pass


_decode = msgspec.json.Decoder(_Typed).decode


def completion(body: bytes, now: float) -> bytes:
    """Translate an answer."""
    try:
        answer = _decode(body)
    except msgspec.MsgspecError:
        raise read_error(None, body) from None
    texts, thoughts, signed, calls = [], [], [], []
    for block in answer.content:
        if block.type == "text":
            texts.append(block.text)
        elif block.type in ("thinking", "redacted_thinking"):
            thoughts.append(block.thinking)
            signed.append(block.thought())
        elif block.type == "tool_use":
            function = FunctionCall(block.name, bytes(block.input).decode())
            calls.append(ToolCall(function, block.id, "function"))
    message = Message(
        "".join(texts) if texts or not calls else None,
        reasoning_content="".join(thoughts) or None,
        thinking_blocks=signed or None,
        tool_calls=calls or None,
    )
    reason = FINISH_REASONS.get(answer.stop_reason or "", "stop")
    choice = Choice(message, reason, 0, answer.stop_sequence)
    return answers.completion(answer.identifier, int(now), answer.model, [choice], answer.usage.translated())
