"""A conversation of OpenAI's API, as the turns and the system prompt of Anthropic's."""

import re
from typing import Literal

from dozen_chassis.errors import InvalidRequest
from dozen_inference.formats.anthropic.blocks import (
    Base64,
    Block,
    Document,
    Image,
    Text,
    ToolResult,
    ToolUse,
    Turn,
    Url,
)
from dozen_inference.formats.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    Part,
    RefusalPart,
    TextPart,
    read_arguments,
    read_data_url,
)
from dozen_inference.formats.refusals import NotSupported

_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_NOT_IN_IDS = re.compile(r"[^a-zA-Z0-9_-]")


def read_turns(messages: list[Message]) -> tuple[list[Text], list[Turn]]:
    """Give the system prompt, which is all that was said as the system, and the turns in their order."""
    system: list[Text] = []
    turns: list[Turn] = []
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        if message.role in ("system", "developer"):
            system += _texts(message, place)
            continue
        role: Literal["user", "assistant"] = "assistant" if message.role == "assistant" else "user"
        blocks = _tool_results(message, place) if message.role == "tool" else _blocks(message, place)
        if not blocks:
            continue
        if turns and turns[-1].role == role:  # as the results of parallel calls must be
            turns[-1].content += blocks
        else:
            turns.append(Turn(role, [*blocks]))
    if not turns:
        raise InvalidRequest("'messages' must hold something that a user says.", param="messages")
    return system, turns


def _texts(message: Message, place: str) -> list[Text]:
    texts = []
    for part in message.parts():
        if not isinstance(part, TextPart):
            raise NotSupported(f"{place}.content", "what the system says is text")
        texts.append(Text(part.text, part.cache_control))
    return texts


def _blocks(message: Message, place: str) -> list[Block]:
    blocks: list[Block] = [*(message.thinking_blocks or ())]
    blocks += (_block(part, f"{place}.content[{at}]") for at, part in enumerate(message.parts()))
    for at, call in enumerate(message.tool_calls or ()):
        where = f"{place}.tool_calls[{at}].function.arguments"
        arguments = read_arguments(call.function.arguments, where)
        blocks.append(ToolUse(tool_id(call.id), call.function.name, arguments))
    return blocks


def _tool_results(message: Message, place: str) -> list[Block]:
    if not message.tool_call_id:
        raise InvalidRequest("A tool's message must say of which call.", param=f"{place}.tool_call_id")
    content = [_block(part, f"{place}.content[{at}]") for at, part in enumerate(message.parts())]
    return [ToolResult(tool_id(message.tool_call_id), content or None)]


def _block(part: Part, place: str) -> Text | Image | Document:
    if isinstance(part, TextPart):
        return Text(part.text, part.cache_control)
    if isinstance(part, RefusalPart):
        return Text(part.refusal)
    if isinstance(part, AudioPart):
        raise NotSupported(place, "it takes no recordings")
    if isinstance(part, ImagePart):
        return Image(_image(part.image_url.url, f"{place}.image_url.url"), part.cache_control)
    return _document(part, f"{place}.file")


def _image(url: str, place: str) -> Base64 | Url:
    if found := read_data_url(url):
        if found[0] not in _IMAGES:
            raise NotSupported(place, f"it takes no {found[0]}")
        return Base64(*found)
    if url.startswith("https://"):
        return Url(url)
    raise InvalidRequest("An image must be in a data URL, or at an https URL.", param=place)


def _document(part: FilePart, place: str) -> Document:
    found = read_data_url(part.file.file_data)
    if found is None:
        raise NotSupported(place, "a file must be in a data URL in `file_data`")
    if found[0] != "application/pdf":
        raise NotSupported(place, f"it takes no {found[0]}")
    return Document(Base64(*found), part.file.filename or None, part.cache_control)


def tool_id(identifier: str) -> str:
    """Give the id of a call as Anthropic's API takes it, whichever upstream made it up."""
    return _NOT_IN_IDS.sub("_", identifier)
