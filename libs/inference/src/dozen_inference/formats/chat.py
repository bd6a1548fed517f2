"""A request of OpenAI's chat completions, read as far as a provider can be asked for it.

Fields that only hint (`seed`, `store`, `service_tier`, `verbosity`, …) and fields that are not OpenAI's are
left out where a provider has nothing like them. What would change the answer's form or meaning is refused.
"""

import re
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from dozen_chassis.errors import InvalidRequest
from dozen_inference.formats.messages import ABSENT, Message
from dozen_inference.formats.refusals import NotSupported
from dozen_inference.request import CompletionRequest

CHAT_PATH = "/v1/chat/completions"


class Function(Struct):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: Raw = ABSENT
    strict: bool | None = None


class Tool(Struct, tag_field="type", tag="function"):
    """A tool that the model may call."""

    function: Function
    cache_control: Raw = ABSENT


class _Name(Struct):
    name: str


class _Named(Struct, tag_field="type", tag="function"):
    function: _Name


class _AllowedTools(Struct):
    mode: Literal["auto", "required"]
    tools: list[_Named]


class _Allowed(Struct, tag_field="type", tag="allowed_tools"):
    allowed_tools: _AllowedTools


class ToolChoice(Struct):
    """Whether the model calls tools, and which."""

    mode: Literal["none", "auto", "required"]
    names: list[str] | None = None
    """None stands for all."""


class JsonSchema(Struct):
    """What an answer has to look like."""

    name: str = ""
    schema: Raw = ABSENT


class SchemaFormat(Struct, tag_field="type", tag="json_schema"):
    """An answer after a schema."""

    json_schema: JsonSchema


class JsonFormat(Struct, tag_field="type", tag="json_object"):
    """An answer in JSON."""


class TextFormat(Struct, tag_field="type", tag="text"):
    """An answer in text."""


class ChatRequest(Struct):
    """What is asked."""

    messages: list[Message]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop: str | list[str] | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | _Named | _Allowed | None = None
    parallel_tool_calls: bool | None = None
    response_format: SchemaFormat | JsonFormat | TextFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    thinking: Raw = ABSENT
    """Anthropic's."""
    cache_control: Raw = ABSENT
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    modalities: list[str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None
    logit_bias: Any = None
    functions: Any = None
    function_call: Any = None
    web_search_options: Any = None

    @property
    def most_tokens(self) -> int | None:
        """Give the most tokens that the answer may have."""
        asked = [most for most in (self.max_completion_tokens, self.max_tokens) if most is not None]
        return min(asked, default=None)

    @property
    def stops(self) -> list[str] | None:
        """Give the texts at which the answer stops."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or None

    @property
    def choice(self) -> ToolChoice | None:
        """Give whether the model calls tools, and which."""
        asked = self.tool_choice
        if isinstance(asked, _Named):
            return ToolChoice("required", [asked.function.name])
        if isinstance(asked, _Allowed):
            allowed = asked.allowed_tools
            return ToolChoice(allowed.mode, [tool.function.name for tool in allowed.tools])
        return ToolChoice(asked) if asked else None

    @property
    def user_id(self) -> str | None:
        """Give whom the request is for, in the client's words."""
        return (self.metadata or {}).get("user_id") or self.safety_identifier or self.user


_decode = msgspec.json.Decoder(ChatRequest).decode
_PLACE = re.compile(r" - at `\$\.?(.*)`$")
_RANGES = {"temperature": (0, 2), "top_p": (0, 1), "top_k": (1, 2**31), "n": (1, 128)}
_MEANT = ("logit_bias", "functions", "function_call", "web_search_options")


def read_chat(request: CompletionRequest, path: str) -> ChatRequest:
    """Read a request; raise where it is not valid, or is one that no provider's format can say."""
    if path != CHAT_PATH:
        raise NotSupported("model", f"it does not offer {path}")
    try:
        chat = _decode(request.body)
    except msgspec.ValidationError as error:
        place = _PLACE.search(str(error))
        message = str(error)[: place.start()] if place else str(error)
        param = place[1] if place else "messages"
        raise InvalidRequest(f"'{param}' is not valid: {message}.", param=param) from error
    for name, (least, most) in _RANGES.items():
        value = getattr(chat, name)
        if value is not None and not least <= value <= most:
            raise InvalidRequest(f"'{name}' must be from {least} to {most}.", param=name)
    for name in _MEANT:
        if getattr(chat, name):
            raise NotSupported(name, "it has nothing like it")
    if set(chat.modalities or ()) - {"text"}:
        raise NotSupported("modalities", "answers are text")
    return chat
