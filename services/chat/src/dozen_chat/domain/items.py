"""Items: what is said to models, and what they say, in the form of the Responses API."""

import uuid
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from dozen_chat.domain.invalid import Invalid, convert

MAX_ITEMS = 1000
"""In one request."""
FIRST_OUTPUT = 0x8000
"""What a response is asked and what it answers are numbered apart."""

Status: TypeAlias = Literal["in_progress", "completed", "incomplete"]
Role: TypeAlias = Literal["user", "assistant", "system", "developer"]


class InputText(msgspec.Struct, tag_field="type", tag="input_text"):
    """A text for a model."""

    text: str


class PlainText(msgspec.Struct, tag_field="type", tag="text"):
    """A text, by whomever."""

    text: str


class OutputText(msgspec.Struct, tag_field="type", tag="output_text"):
    """A text of a model."""

    text: str
    annotations: list[Any] = msgspec.field(default_factory=list)
    logprobs: list[Any] | UnsetType | None = UNSET


class Refusal(msgspec.Struct, tag_field="type", tag="refusal"):
    """Why a model does not answer."""

    refusal: str


class ReasoningText(msgspec.Struct, tag_field="type", tag="reasoning_text"):
    """What a model thought."""

    text: str


class SummaryText(msgspec.Struct, tag_field="type", tag="summary_text"):
    """What a model thought, in short."""

    text: str


class InputImage(msgspec.Struct, tag_field="type", tag="input_image"):
    """An image, as a URL or a data URL."""

    image_url: str | UnsetType | None = UNSET
    file_id: str | UnsetType | None = UNSET
    detail: str | None = "auto"


class InputFile(msgspec.Struct, tag_field="type", tag="input_file"):
    """A file, as a URL or a data URL."""

    file_data: str | UnsetType | None = UNSET
    file_url: str | UnsetType | None = UNSET
    file_id: str | UnsetType | None = UNSET
    filename: str | UnsetType | None = UNSET


class InputAudio(msgspec.Struct, tag_field="type", tag="input_audio"):
    """A recording."""

    input_audio: dict[str, str]


Content: TypeAlias = InputText | PlainText | OutputText | Refusal | InputImage | InputFile | InputAudio


class Message(msgspec.Struct, tag_field="type", tag="message"):
    """Something that somebody says."""

    prefix: ClassVar[str] = "msg"

    role: Role
    content: list[Content]
    id: str = ""
    status: Status = "completed"
    phase: str | UnsetType | None = UNSET


class FunctionCall(msgspec.Struct, tag_field="type", tag="function_call"):
    """A model wants a function to be called."""

    prefix: ClassVar[str] = "fc"

    call_id: str
    name: str
    arguments: str
    id: str = ""
    status: Status = "completed"


class FunctionCallOutput(msgspec.Struct, tag_field="type", tag="function_call_output"):
    """What the function gave."""

    prefix: ClassVar[str] = "fco"

    call_id: str
    output: str | list[Content]
    id: str = ""
    status: Status = "completed"


class Reasoning(msgspec.Struct, tag_field="type", tag="reasoning"):
    """What a model thought before it answered."""

    prefix: ClassVar[str] = "rs"

    summary: list[SummaryText] = msgspec.field(default_factory=list)
    content: list[ReasoningText] | UnsetType | None = UNSET
    encrypted_content: str | UnsetType | None = UNSET
    id: str = ""
    status: Status | UnsetType | None = UNSET


class ItemReference(msgspec.Struct, tag_field="type", tag="item_reference"):
    """An item that is stored."""

    id: str


Item: TypeAlias = Message | FunctionCall | FunctionCallOutput | Reasoning

_KINDS: dict[str, type[Item] | type[ItemReference]] = {
    "message": Message,
    "function_call": FunctionCall,
    "function_call_output": FunctionCallOutput,
    "reasoning": Reasoning,
    "item_reference": ItemReference,
}


def read_items(given: Sequence[Any], param: str, *, most: int = MAX_ITEMS) -> list[Item | ItemReference]:
    """Read the items of a request, which may be in the short forms that clients use."""
    if len(given) > most:
        raise Invalid(f"'{param}' may have at most {most} items.", param)
    return [_read(item, f"{param}[{index}]") for index, item in enumerate(given)]


def say(text: str) -> Message:
    """Give the message of a user."""
    return Message("user", [InputText(text)])


def new_hex() -> str:
    """Make the part that ids have in common which belong together."""
    return uuid.uuid4().hex


def number(items: Sequence[Item], common: str, first: int = 0) -> None:
    """Give items their ids, by which they can be found: all of a request have `common` in them."""
    for index, item in enumerate(items, first):
        item.id = f"{item.prefix}_{common}{index:04x}"


def common_part(item_id: str) -> str:
    """Give what the id of an item has in common with others; empty where it is none of ours."""
    _, _, rest = item_id.partition("_")
    return rest[:32] if len(rest) == 36 else ""


def _read(given: Any, param: str) -> Item | ItemReference:
    if not isinstance(given, dict):
        raise Invalid("Expected an object.", param)
    kind = given.get("type") or "message"  # a reference has to say so: the gateway holds more for it
    struct = _KINDS.get(kind) if isinstance(kind, str) else None
    if struct is None:
        raise Invalid(f"Items of the type '{kind}' are not supported here.", f"{param}.type")
    given = {**given, "type": kind}
    if struct is Message and isinstance(text := given.get("content"), str):
        said = "output_text" if given.get("role") == "assistant" else "input_text"
        given["content"] = [{"type": said, "text": text}]
    if given.get("status", "") is None:
        del given["status"]
    if struct is not ItemReference:
        given.pop("id", None)  # null perhaps; stored, an item has an id of ours
    item: Item | ItemReference = convert(given, struct, param)
    if isinstance(item, FunctionCall | FunctionCallOutput) and not item.call_id:
        raise Invalid("'call_id' may not be empty.", f"{param}.call_id")
    return item
