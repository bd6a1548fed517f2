"""Streamed answers of Anthropic's Messages API, as the chunks of a chat completion."""

from collections.abc import Callable

import msgspec
from msgspec import Struct

from dozen_inference.formats.answers import Chunks, Delta, FunctionCall, ToolCall
from dozen_inference.formats.anthropic.answer import FINISH_REASONS, Answer, Block, Usage
from dozen_inference.formats.anthropic.errors import Problem, translated
from dozen_inference.formats.events import EventData
from dozen_inference.upstream import UpstreamFailed


class _Piece(Struct):
    """What is added to a block, or to the message as a whole."""

    type: str = ""
    text: str = ""
    thinking: str = ""
    signature: str = ""
    partial_json: str = ""
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _Event(Struct):
    type: str
    index: int = 0
    message: Answer | None = None
    content_block: Block | None = None
    delta: _Piece | None = None
    usage: Usage | None = None
    error: Problem | None = None


_decode = msgspec.json.Decoder(_Event).decode


class AnthropicStream:
    """Translates one stream; events and blocks that it does not know pass without a trace."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._events = EventData()
        self._chunks: Chunks | None = None
        self._usage = Usage()
        self._open: dict[int, Block] = {}
        """Blocks that have begun and not stopped."""
        self._has_begun = False
        self._calls = -1
        """Index of the last tool call."""
        self._has_arguments = False
        self._has_ended = False

    def feed(self, chunk: bytes) -> bytes:
        """Give the events of OpenAI's stream that a chunk completes."""
        given = []
        for data in self._events.feed(chunk):
            try:
                event = _decode(data)
            except msgspec.MsgspecError as error:
                raise UpstreamFailed() from error
            if event.error is not None:
                raise translated(event.error)
            given.append(self._take(event))
        return b"".join(given)

    def end(self) -> bytes:
        """Raise where the end did not come."""
        if not self._has_ended:
            raise UpstreamFailed()
        return b""

    def _take(self, event: _Event) -> bytes:
        if event.type == "message_start" and event.message:
            message = event.message
            self._usage = message.usage
            self._chunks = Chunks(message.identifier, int(self._now()), message.model)
            return b""
        if self._chunks is None or self._has_ended:
            return b""
        return self._begin(event, self._chunks) + self._continue(event, self._chunks)

    def _begin(self, event: _Event, chunks: Chunks) -> bytes:
        """Give the first chunk; not at once, so that an overload which is told next is all that came."""
        if self._has_begun or event.type not in ("content_block_start", "message_delta"):
            return b""
        self._has_begun = True
        return chunks.delta(Delta(role="assistant", content=""))

    def _continue(self, event: _Event, chunks: Chunks) -> bytes:
        delta = event.delta
        if event.type == "content_block_delta" and delta:
            return self._extend(event.index, delta, chunks)
        if event.type == "content_block_start" and event.content_block:
            return self._start(event.index, event.content_block, chunks)
        if event.type == "content_block_stop" and event.index in self._open:
            return self._stop(self._open.pop(event.index), chunks)
        if event.usage:
            self._usage.update(event.usage)
        if event.type == "message_delta" and delta and delta.stop_reason:
            reason = FINISH_REASONS.get(delta.stop_reason, "stop")
            return chunks.finish(reason, stop=delta.stop_sequence)
        if event.type == "message_stop":
            self._has_ended = True
            return chunks.done(self._usage.translated())
        return b""

    def _start(self, index: int, block: Block, chunks: Chunks) -> bytes:
        self._open[index] = block
        if block.type == "tool_use":
            self._calls += 1
            self._has_arguments = False
            call = ToolCall(FunctionCall(block.name, ""), block.id, "function", self._calls)
            return chunks.delta(Delta(tool_calls=[call]))
        if block.type == "text" and block.text:
            return chunks.delta(Delta(content=block.text))
        return b""

    def _extend(self, index: int, piece: _Piece, chunks: Chunks) -> bytes:
        if piece.type == "text_delta":
            return chunks.delta(Delta(content=piece.text))
        block = self._open.get(index)
        if block is None:
            return b""
        if piece.type == "input_json_delta" and piece.partial_json and block.type == "tool_use":
            self._has_arguments = True
            return chunks.delta(Delta(tool_calls=[self._arguments(piece.partial_json)]))
        if piece.type == "thinking_delta":
            block.thinking += piece.thinking
            return chunks.delta(Delta(reasoning_content=piece.thinking))
        if piece.type == "signature_delta":
            block.signature += piece.signature
        return b""

    def _stop(self, block: Block, chunks: Chunks) -> bytes:
        if block.type in ("thinking", "redacted_thinking"):
            return chunks.delta(Delta(thinking_blocks=[block.thought()]))
        if block.type == "tool_use" and not self._has_arguments:  # all came at the start, or there are none
            return chunks.delta(Delta(tool_calls=[self._arguments(bytes(block.input).decode())]))
        return b""

    def _arguments(self, piece: str) -> ToolCall:
        return ToolCall(FunctionCall(arguments=piece), index=self._calls)
