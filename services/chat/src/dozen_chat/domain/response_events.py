"""Events of a streamed response, named as OpenAI's clients know them."""

from typing import Any

import msgspec

from dozen_chat.domain.items import Item, OutputText, ReasoningText, Refusal
from dozen_chat.domain.response_object import Response


class Event(msgspec.Struct, tag_field="type", kw_only=True):
    """Something that happened to a response."""

    sequence_number: int = 0


class ResponseEvent(Event):
    """Something that happened to the response as a whole."""

    response: Response


class Created(ResponseEvent, tag="response.created"):
    """The response has begun."""


class InProgress(ResponseEvent, tag="response.in_progress"):
    """The model is at it."""


class Completed(ResponseEvent, tag="response.completed"):
    """The answer is complete."""


class Incomplete(ResponseEvent, tag="response.incomplete"):
    """The answer ended before it was complete."""


class Failed(ResponseEvent, tag="response.failed"):
    """There is no answer, or no end of it."""


class Error(Event, tag="error"):
    """Something went wrong."""

    code: str | None
    message: str
    param: str | None


class ItemEvent(Event):
    """Something that happened to an item of the output."""

    output_index: int
    item: Item


class ItemAdded(ItemEvent, tag="response.output_item.added"):
    """An item has begun."""


class ItemDone(ItemEvent, tag="response.output_item.done"):
    """An item has ended."""


class InItem(Event):
    """Something that happened inside an item."""

    item_id: str
    output_index: int


class ArgumentsDelta(InItem, tag="response.function_call_arguments.delta"):
    """A piece of the arguments of a function call."""

    delta: str


class ArgumentsDone(InItem, tag="response.function_call_arguments.done"):
    """The arguments of a function call."""

    name: str
    arguments: str


class InPart(InItem):
    """Something that happened inside a part of an item's content."""

    content_index: int


class PartEvent(InPart):
    """Something that happened to a part."""

    part: OutputText | Refusal | ReasoningText


class PartAdded(PartEvent, tag="response.content_part.added"):
    """A part has begun."""


class PartDone(PartEvent, tag="response.content_part.done"):
    """A part has ended."""


class TextDelta(InPart, tag="response.output_text.delta"):
    """A piece of text."""

    delta: str
    logprobs: list[Any]


class TextDone(InPart, tag="response.output_text.done"):
    """A text."""

    text: str
    logprobs: list[Any]


class RefusalDelta(InPart, tag="response.refusal.delta"):
    """A piece of a refusal."""

    delta: str


class RefusalDone(InPart, tag="response.refusal.done"):
    """A refusal."""

    refusal: str


class ReasoningDelta(InPart, tag="response.reasoning_text.delta"):
    """A piece of what the model thinks."""

    delta: str


class ReasoningDone(InPart, tag="response.reasoning_text.done"):
    """What the model thought."""

    text: str


_encoder = msgspec.json.Encoder()


def write_event(event: Event) -> bytes:
    """Write an event as it is sent."""
    name = str(event.__struct_config__.tag).encode()
    return b"event: %b\ndata: %b\n\n" % (name, _encoder.encode(event))
