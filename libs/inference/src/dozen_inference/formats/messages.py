"""The messages of a chat completion request, as its clients write them."""

import re
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from dozen_chassis.errors import InvalidRequest

ABSENT = Raw()
"""Of a field that is kept as it came, and did not."""


class TextPart(Struct, tag_field="type", tag="text"):
    """Text."""

    text: str
    cache_control: Raw = ABSENT
    """Anthropic's; so it is in other places."""


class ImageUrl(Struct):
    """Where an image is: a data or https URL."""

    url: str


class ImagePart(Struct, tag_field="type", tag="image_url"):
    """An image."""

    image_url: ImageUrl
    cache_control: Raw = ABSENT


class Audio(Struct):
    """A recording, in base64."""

    data: str
    format: str


class AudioPart(Struct, tag_field="type", tag="input_audio"):
    """A recording."""

    input_audio: Audio


class File(Struct):
    """A file in a data URL; one that was uploaded is at OpenAI only."""

    file_data: str = ""
    filename: str = ""


class FilePart(Struct, tag_field="type", tag="file"):
    """A file."""

    file: File
    cache_control: Raw = ABSENT


class RefusalPart(Struct, tag_field="type", tag="refusal"):
    """What the model said when it refused."""

    refusal: str


Part = TextPart | ImagePart | AudioPart | FilePart | RefusalPart


class CalledFunction(Struct):
    """A call that a model has made."""

    name: str
    arguments: str = ""


class CalledTool(Struct, tag_field="type", tag="function"):
    """A call that a model has made."""

    function: CalledFunction
    id: str = ""
    extra_content: dict[str, Any] | None = None


class Message(Struct):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    tool_calls: list[CalledTool] | None = None
    tool_call_id: str | None = None
    thinking_blocks: list[Raw] | None = None
    cache_control: Raw = ABSENT

    def parts(self) -> list[Part]:
        """Give the content as parts, without empty text."""
        if isinstance(self.content, str):
            return [TextPart(self.content, self.cache_control)] if self.content else []
        return [part for part in self.content or [] if not (isinstance(part, TextPart) and not part.text)]


def is_given(raw: Raw) -> bool:
    """Tell whether a field that is kept as it came did come, with a value."""
    return len(memoryview(raw)) > 0 and bytes(raw) != b"null"


def read_arguments(text: str, param: str) -> Raw:
    """Read the arguments of a call, which are JSON in a text; none at all are an empty object."""
    raw = text.strip().encode() or b"{}"
    try:
        msgspec.json.decode(raw, type=dict[str, Raw])
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"'{param}' is not a JSON object: {error}.", param=param) from error
    return Raw(raw)


_DATA_URL = re.compile(r"data:([\w.+-]+/[\w.+-]+)(?:;[\w=.+-]+)*;base64,", re.IGNORECASE)


def read_data_url(url: str) -> tuple[str, str] | None:
    """Give the media type and the base64 text of a data URL; None for a URL of another kind."""
    found = _DATA_URL.match(url)
    return (found[1].lower(), url[found.end() :]) if found else None
