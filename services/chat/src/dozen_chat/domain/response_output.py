"""The output of a response as it is written: items, and the events that tell of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from dozen_chat.domain import response_events as events
from dozen_chat.domain.chat_answer import TokenLogprob, ToolCall, written_logprobs
from dozen_chat.domain.items import (
    FIRST_OUTPUT,
    FunctionCall,
    Item,
    Message,
    OutputText,
    Reasoning,
    ReasoningText,
    Refusal,
    Status,
    number,
)

Kind: TypeAlias = Literal["text", "refusal", "reasoning"]


@dataclass
class _Speech:
    """What is being said: the last part of an item."""

    kind: Kind
    item: Message | Reasoning
    output_index: int
    content_index: int = 0
    pieces: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)

    def place(self) -> dict[str, Any]:
        return {
            "item_id": self.item.id,
            "output_index": self.output_index,
            "content_index": self.content_index,
        }


@dataclass
class _Call:
    """A function call whose arguments are being written."""

    item: FunctionCall
    output_index: int
    pieces: list[str] = field(default_factory=list)


class OutputWriter:
    """Writes items into the list `items`; their ids have `common` in them."""

    def __init__(self, items: list[Item], common: str) -> None:
        self.items = items
        self._common = common
        self._speech: _Speech | None = None
        self._calls: dict[int | str, _Call] = {}
        self._events: list[bytes] = []
        self._emitted = 0

    def say(self, kind: Kind, text: str, logprobs: Sequence[TokenLogprob] = ()) -> None:
        """Go on saying something, or begin to."""
        speech = self._speech
        if speech is None or speech.kind != kind:
            speech = self._open(kind)
        speech.pieces.append(text)
        place = speech.place()
        match kind:
            case "text":
                speech.logprobs.extend(logprobs)
                told = written_logprobs(logprobs, bytes=False)
                self.emit(events.TextDelta(delta=text, logprobs=told, **place))
            case "refusal":
                self.emit(events.RefusalDelta(delta=text, **place))
            case "reasoning":
                self.emit(events.ReasoningDelta(delta=text, **place))

    def _open(self, kind: Kind) -> _Speech:
        last = self._speech
        if last is not None and "reasoning" not in (last.kind, kind):
            self._end_part(last)
            speech = _Speech(kind, last.item, last.output_index, last.content_index + 1)
        else:
            self._end_speech("completed")
            item = Reasoning() if kind == "reasoning" else Message("assistant", [])
            item.status = "in_progress"
            speech = _Speech(kind, item, self._add(item))
        self._speech = speech
        self.emit(events.PartAdded(part=_part(kind, "", ()), **speech.place()))
        return speech

    def call(self, piece: ToolCall, position: int) -> None:
        """Go on with a function call, or begin one; all stay open to the end, as their pieces may mix."""
        key = piece.index if piece.index is not None else piece.id or position
        function = piece.function
        name, arguments = (function.name or "", function.arguments or "") if function else ("", "")
        call = self._calls.get(key)
        if call is None:
            self._end_speech("completed")
            item = FunctionCall(self._call_id(piece), name, "", status="in_progress")
            call = self._calls[key] = _Call(item, self._add(item))
        if arguments:
            call.pieces.append(arguments)
            self.emit(
                events.ArgumentsDelta(delta=arguments, item_id=call.item.id, output_index=call.output_index)
            )

    def _call_id(self, piece: ToolCall) -> str:
        if piece.id and all(call.item.call_id != piece.id for call in self._calls.values()):
            return piece.id
        return f"call_{self._common}{len(self._calls)}"

    def _add(self, item: Item) -> int:
        index = len(self.items)
        number([item], self._common, FIRST_OUTPUT + index)
        self.emit(events.ItemAdded(output_index=index, item=item))
        self.items.append(item)
        return index

    def close(self, status: Status) -> None:
        """End all that is open; what was written last gets the status, all before it is complete."""
        spoke = self._speech is not None
        self._end_speech(status)
        for index, call in enumerate(self._calls.values(), 1):
            last = index == len(self._calls) and not spoke
            item = call.item
            item.arguments, item.status = "".join(call.pieces), status if last else "completed"
            place: dict[str, Any] = {"item_id": item.id, "output_index": call.output_index}
            self.emit(events.ArgumentsDone(name=item.name, arguments=item.arguments, **place))
            self.emit(events.ItemDone(output_index=call.output_index, item=item))
        self._calls.clear()

    def _end_speech(self, status: Status) -> None:
        if self._speech is not None:
            self._end_part(self._speech)
            item = self._speech.item
            item.status = status
            self.emit(events.ItemDone(output_index=self._speech.output_index, item=item))
            self._speech = None

    def _end_part(self, speech: _Speech) -> None:
        text, place = "".join(speech.pieces), speech.place()
        match speech.kind:
            case "text":
                told = written_logprobs(speech.logprobs, bytes=False)
                self.emit(events.TextDone(text=text, logprobs=told, **place))
            case "refusal":
                self.emit(events.RefusalDone(refusal=text, **place))
            case "reasoning":
                self.emit(events.ReasoningDone(text=text, **place))
        part: Any = _part(speech.kind, text, speech.logprobs)
        speech.item.content = [*(speech.item.content or []), part]
        self.emit(events.PartDone(part=part, **place))

    def emit(self, event: events.Event) -> None:
        """Put an event behind those that are to be sent."""
        event.sequence_number = self._emitted
        self._emitted += 1
        self._events.append(events.write_event(event))

    def flush(self) -> bytes:
        """Give the events that are to be sent."""
        written = b"".join(self._events)
        self._events.clear()
        return written


def _part(kind: Kind, text: str, logprobs: Sequence[TokenLogprob]) -> OutputText | Refusal | ReasoningText:
    match kind:
        case "refusal":
            return Refusal(text)
        case "reasoning":
            return ReasoningText(text)
    return OutputText(text, [], written_logprobs(logprobs, bytes=True))
