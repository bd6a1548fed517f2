"""What a request to Anthropic's Messages API is made of."""

from typing import Any, Literal

from msgspec import Raw, Struct

from dozen_inference.formats.messages import ABSENT


class Text(Struct, tag_field="type", tag="text", omit_defaults=True):
    """Text."""

    text: str
    cache_control: Raw = ABSENT


class Base64(Struct, tag_field="type", tag="base64"):
    """The content of an image or document."""

    media_type: str
    data: str


class Url(Struct, tag_field="type", tag="url"):
    """Where an image or document is."""

    url: str


class Image(Struct, tag_field="type", tag="image", omit_defaults=True):
    """An image."""

    source: Base64 | Url
    cache_control: Raw = ABSENT


class Document(Struct, tag_field="type", tag="document", omit_defaults=True):
    """A document."""

    source: Base64 | Url
    title: str | None = None
    cache_control: Raw = ABSENT


class ToolUse(Struct, tag_field="type", tag="tool_use"):
    """A call that the model has made."""

    id: str
    name: str
    input: Raw


class ToolResult(Struct, tag_field="type", tag="tool_result", omit_defaults=True):
    """What came of a call."""

    tool_use_id: str
    content: list[Any] | None = None
    cache_control: Raw = ABSENT


Block = Text | Image | Document | ToolUse | ToolResult | Raw
"""Thoughts are kept as they came: their signature holds for their very text."""


class Turn(Struct):
    """All that one side says before the other one speaks."""

    role: Literal["user", "assistant"]
    content: list[Any]


class Tool(Struct, omit_defaults=True):
    """A tool that the model may call."""

    name: str
    input_schema: Raw
    description: str | None = None
    strict: bool | None = None
    cache_control: Raw = ABSENT


class ToolChoice(Struct, omit_defaults=True):
    """Whether the model calls tools, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class Thinking(Struct, omit_defaults=True):
    """Whether the model thinks before it answers."""

    type: Literal["adaptive", "enabled", "disabled"]
    budget_tokens: int | None = None
    display: Literal["summarized"] | None = None


class SchemaFormat(Struct, tag_field="type", tag="json_schema"):
    """What the answer has to look like."""

    schema: Raw


class OutputConfig(Struct, omit_defaults=True):
    """How the model answers."""

    effort: str | None = None
    format: SchemaFormat | None = None


class Metadata(Struct):
    """Whom the request is for."""

    user_id: str


class MessagesRequest(Struct, omit_defaults=True):
    """A request."""

    model: str
    max_tokens: int
    messages: list[Turn]
    system: list[Text] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | Any = None
    output_config: OutputConfig | None = None
    metadata: Metadata | None = None
    cache_control: Raw = ABSENT
