"""What a request to the Messages API may hold; any other field is refused."""

from typing import Any, Literal

import msgspec


class _Strict(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    pass


class Ephemeral(_Strict, tag_field="type", tag="ephemeral"):
    """A mark up to which the prompt is cached."""

    ttl: Literal["5m", "1h"] | None = None


class Text(_Strict, tag_field="type", tag="text"):
    """Text."""

    text: str
    cache_control: Ephemeral | None = None


class Base64(_Strict, tag_field="type", tag="base64"):
    """What an image or document holds."""

    media_type: str
    data: str


class Url(_Strict, tag_field="type", tag="url"):
    """Where an image or document is."""

    url: str


class Image(_Strict, tag_field="type", tag="image"):
    """An image."""

    source: Base64 | Url
    cache_control: Ephemeral | None = None


class Document(_Strict, tag_field="type", tag="document"):
    """A document."""

    source: Base64 | Url
    title: str | None = None
    cache_control: Ephemeral | None = None


class ToolUse(_Strict, tag_field="type", tag="tool_use"):
    """A call of a tool."""

    id: str
    name: str
    input: dict[str, Any]
    cache_control: Ephemeral | None = None


class ToolResult(_Strict, tag_field="type", tag="tool_result"):
    """What came of a call."""

    tool_use_id: str
    content: str | list[Text | Image | Document] | None = None
    is_error: bool | None = None
    cache_control: Ephemeral | None = None


class Thought(_Strict, tag_field="type", tag="thinking"):
    """A thought of the model."""

    thinking: str
    signature: str


class RedactedThought(_Strict, tag_field="type", tag="redacted_thinking"):
    """A thought that is not told."""

    data: str


Block = Text | Image | Document | ToolUse | ToolResult | Thought | RedactedThought


class Message(_Strict):
    """A turn, or a part of one."""

    role: Literal["user", "assistant"]
    content: str | list[Block]

    def blocks(self) -> list[Block]:
        """Give the content as blocks."""
        return [Text(self.content)] if isinstance(self.content, str) else self.content


class Tool(_Strict):
    """A tool of the client."""

    name: str
    input_schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None
    type: Literal["custom"] | None = None
    cache_control: Ephemeral | None = None


class Auto(_Strict, tag_field="type", tag="auto"):
    """The model calls tools as it likes."""

    disable_parallel_tool_use: bool = False


class AnyTool(_Strict, tag_field="type", tag="any"):
    """The model calls some tool."""

    disable_parallel_tool_use: bool = False


class OneTool(_Strict, tag_field="type", tag="tool"):
    """The model calls this tool."""

    name: str
    disable_parallel_tool_use: bool = False


class NoTool(_Strict, tag_field="type", tag="none"):
    """The model calls no tool."""


class Enabled(_Strict, tag_field="type", tag="enabled"):
    """The model thinks within a budget."""

    budget_tokens: int
    display: Literal["summarized", "omitted"] | None = None


class Adaptive(_Strict, tag_field="type", tag="adaptive"):
    """The model thinks as it likes."""

    display: Literal["summarized", "omitted"] | None = None


class Disabled(_Strict, tag_field="type", tag="disabled"):
    """The model does not think."""


class JsonSchema(_Strict, tag_field="type", tag="json_schema"):
    """An answer after a schema."""

    schema: dict[str, Any]


class OutputConfig(_Strict):
    """How to answer."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: JsonSchema | None = None


class Metadata(_Strict):
    """Whom the request is for."""

    user_id: str | None = None


class Request(_Strict):
    """A request."""

    model: str
    max_tokens: int
    messages: list[Message]
    system: str | list[Text] | None = None
    stream: bool = False
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[Tool] | None = None
    tool_choice: Auto | AnyTool | OneTool | NoTool | None = None
    thinking: Enabled | Adaptive | Disabled | None = None
    output_config: OutputConfig | None = None
    metadata: Metadata | None = None
    cache_control: Ephemeral | None = None
    service_tier: Literal["auto", "standard_only"] | None = None
