"""A conversation of OpenAI's API, as the contents and the system instruction of Gemini's."""

import mimetypes
import re
from typing import Any, Literal
from urllib.parse import urlsplit

from msgspec import Raw, Struct

from dozen_chassis.errors import InvalidRequest
from dozen_inference.formats.messages import (
    AudioPart,
    FilePart,
    ImagePart,
    Message,
    RefusalPart,
    TextPart,
    read_arguments,
    read_data_url,
)
from dozen_inference.formats.messages import Part as AskedPart
from dozen_inference.formats.refusals import NotSupported

SKIP_SIGNATURE = "skip_thought_signature_validator"
"""Google's word for a call without a signature of the thoughts behind it, as those of other models are."""

_VERSION = re.compile(r"gemini-(\d+)")


class Blob(Struct, rename="camel"):
    """Content in base64."""

    mime_type: str
    data: str


class FileData(Struct, rename="camel", omit_defaults=True):
    """Content that is at a URL."""

    file_uri: str
    mime_type: str | None = None


class FunctionCall(Struct, omit_defaults=True):
    """A call that the model has made."""

    name: str
    args: Raw
    id: str | None = None


class FunctionResponse(Struct, omit_defaults=True):
    """What came of a call."""

    name: str
    response: dict[str, str]
    id: str | None = None


class Part(Struct, rename="camel", omit_defaults=True):
    """A piece of content: one of these."""

    text: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    function_call: FunctionCall | None = None
    function_response: FunctionResponse | None = None
    thought_signature: str | None = None


class Content(Struct, omit_defaults=True):
    """What one side says."""

    parts: list[Part]
    role: Literal["user", "model"] | None = None


def model_generation(model: str) -> int:
    """Give the first number of a model's version; one without is taken for a new one."""
    found = _VERSION.search(model)
    return int(found[1]) if found else 3


def read_contents(messages: list[Message], model: str) -> tuple[Content | None, list[Content]]:
    """Give the system instruction, which is all that was said as the system, and the rest in its order."""
    system: list[Part] = []
    contents: list[Content] = []
    names: dict[str, str] = {}
    after_tool = False
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        if message.role in ("system", "developer"):
            system += _texts(message, place)
            continue
        is_tool = message.role == "tool"
        if is_tool:
            parts = [_function_response(message, names, place)]
        else:
            parts = [_part(part, f"{place}.content[{at}]") for at, part in enumerate(message.parts())]
            parts += _function_calls(message, names, model, place)
        if not parts:
            continue
        if is_tool and after_tool:  # the results of parallel calls come together, as the calls did
            contents[-1].parts += parts
        else:
            contents.append(Content(parts, "model" if message.role == "assistant" else "user"))
        after_tool = is_tool
    if not contents:
        raise InvalidRequest("'messages' must hold something that a user says.", param="messages")
    return Content(system) if system else None, contents


def _texts(message: Message, place: str) -> list[Part]:
    texts = []
    for part in message.parts():
        if not isinstance(part, TextPart):
            raise NotSupported(f"{place}.content", "what the system says is text")
        texts.append(Part(part.text))
    return texts


def _function_calls(message: Message, names: dict[str, str], model: str, place: str) -> list[Part]:
    parts = []
    for at, call in enumerate(message.tool_calls or ()):
        where = f"{place}.tool_calls[{at}].function.arguments"
        names[call.id] = call.function.name
        arguments = read_arguments(call.function.arguments, where)
        signature = _signature(call.extra_content)
        if signature is None and at == 0 and model_generation(model) >= 3:
            signature = SKIP_SIGNATURE
        function = FunctionCall(call.function.name, arguments, call.id or None)
        parts.append(Part(function_call=function, thought_signature=signature))
    return parts


def _signature(extra: dict[str, Any] | None) -> str | None:
    google = (extra or {}).get("google")
    found = google.get("thought_signature") if isinstance(google, dict) else None
    return found if isinstance(found, str) else None


def _function_response(message: Message, names: dict[str, str], place: str) -> Part:
    name = names.get(message.tool_call_id or "")
    if name is None:
        raise InvalidRequest("No message before says of a call with this id.", param=f"{place}.tool_call_id")
    output = "".join(part.text for part in _texts(message, place) if part.text)
    return Part(function_response=FunctionResponse(name, {"output": output}, message.tool_call_id))


def _part(part: AskedPart, place: str) -> Part:
    if isinstance(part, TextPart):
        return Part(part.text)
    if isinstance(part, RefusalPart):
        return Part(part.refusal)
    if isinstance(part, AudioPart):
        return Part(inline_data=Blob(f"audio/{part.input_audio.format}", part.input_audio.data))
    if isinstance(part, ImagePart):
        return _media(part.image_url.url, f"{place}.image_url.url")
    return _file(part, f"{place}.file.file_data")


def _file(part: FilePart, place: str) -> Part:
    if not part.file.file_data:
        raise NotSupported(place, "a file must be in a data URL")
    return _media(part.file.file_data, place)


def _media(url: str, place: str) -> Part:
    if found := read_data_url(url):
        return Part(inline_data=Blob(*found))
    if url.startswith("https://"):
        return Part(file_data=FileData(url, mimetypes.guess_type(urlsplit(url).path)[0]))
    raise InvalidRequest("It must be a data URL or an https URL.", param=place)
