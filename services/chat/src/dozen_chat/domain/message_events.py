"""The named events in which Anthropic's Messages API streams a message."""

from collections.abc import Sequence
from typing import Any

import msgspec

from dozen_chat.domain.message_object import (
    ChatUsage,
    Completion,
    Said,
    ThinkingBlock,
    ToolCall,
    message_id,
    stopping,
    thinking_block,
)

_encode = msgspec.json.Encoder().encode
_PING = b'event: ping\ndata: {"type":"ping"}\n\n'


def event(kind: str, **fields: Any) -> bytes:
    """Give an event."""
    name = kind.encode()
    return b"event: %s\ndata: %s\n\n" % (name, _encode({"type": kind, **fields}))


class MessageEvents:
    """Writes a message as its chat completion comes in; one block is open at a time."""

    def __init__(self, *, stop_sequences: Sequence[str] | None, tells_thoughts: bool) -> None:
        self.has_begun = False
        self.has_ended = False
        self._stop_sequences = stop_sequences
        self._tells_thoughts = tells_thoughts
        self._index = -1
        self._open = ""
        """The type of the open block."""
        self._call = -1
        """Index of the open call, and of all before it."""
        self._stopping: dict[str, str | None] | None = None
        self._usage = ChatUsage()
        self._delta_head = b""

    def take(self, completion: Completion) -> bytes:
        """Give the events for an event of the chat completion."""
        written = b"" if self.has_begun else self._begin(completion)
        self._usage = completion.usage or self._usage
        for choice in completion.choices[:1]:
            if choice.delta is not None:
                written += self._extend(choice.delta)
            if choice.finish_reason:
                self._stopping = stopping(choice.finish_reason, choice.stop_reason, self._stop_sequences)
        return written

    def end(self) -> bytes:
        """Give the events that end the message."""
        self.has_ended = True
        delta = self._stopping or stopping("", None, None)
        return (
            self._close()
            + event("message_delta", delta=delta, usage=self._usage.translated())
            + event("message_stop")
        )

    def _begin(self, completion: Completion) -> bytes:
        self.has_begun = True
        message: dict[str, Any] = {
            "id": message_id(completion.id),
            "type": "message",
            "role": "assistant",
            "model": completion.model,
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": ChatUsage().translated(),  # what is not known before the end, which tells all
        }
        return event("message_start", message=message) + _PING

    def _extend(self, said: Said) -> bytes:
        written = b""
        if self._tells_thoughts:
            if thought := said.thought:
                written += self._turn_to("thinking", {"thinking": "", "signature": ""})
                written += self._delta(b"thinking_delta", b"thinking", thought)
            for block in said.thinking_blocks or ():
                written += self._sign(block)
        if text := said.text:
            written += self._turn_to("text", {"text": ""})
            written += self._delta(b"text_delta", b"text", text)
        for call in said.tool_calls or ():
            written += self._extend_call(call)
        return written

    def _sign(self, block: ThinkingBlock) -> bytes:
        """End a thought with its signature."""
        if block.type == "redacted_thinking":
            return self._turn_to(block.type, thinking_block(block)) + self._close()
        written = self._turn_to("thinking", {"thinking": "", "signature": ""})
        return written + self._delta(b"signature_delta", b"signature", block.signature) + self._close()

    def _extend_call(self, call: ToolCall) -> bytes:
        """Go on with a call, or begin the next one; servers write one after the other."""
        written = b""
        piece = call.function.arguments
        if call.index > self._call:
            self._call = call.index
            fields = {"id": call.id or "", "name": call.function.name or "", "input": {}}
            written = self._close() + self._start("tool_use", fields)
        elif piece and (self._open != "tool_use" or call.index < self._call):
            raise ValueError("a piece of a tool call that has ended")
        if piece:
            written += self._delta(b"input_json_delta", b"partial_json", piece)
        return written

    def _turn_to(self, kind: str, fields: dict[str, Any]) -> bytes:
        return b"" if self._open == kind else self._close() + self._start(kind, fields)

    def _start(self, kind: str, fields: dict[str, Any]) -> bytes:
        self._index += 1
        self._open = kind
        self._delta_head = (
            b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,"delta":{"type":"'
            % self._index
        )
        return event("content_block_start", index=self._index, content_block={"type": kind, **fields})

    def _delta(self, kind: bytes, name: bytes, piece: str) -> bytes:
        return b'%s%s","%s":%s}}\n\n' % (self._delta_head, kind, name, _encode(piece))

    def _close(self) -> bytes:
        if not self._open:
            return b""
        self._open = ""
        return event("content_block_stop", index=self._index)
