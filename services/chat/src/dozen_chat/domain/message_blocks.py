"""What a request of Anthropic's Messages API is made of; fields that it does not need are left alone."""

from typing import Literal

from msgspec import Raw, Struct


class Text(Struct, tag_field="type", tag="text"):
    """Text."""

    text: str


class Base64(Struct, tag_field="type", tag="base64"):
    """The content of an image or document."""

    media_type: str
    data: str


class Url(Struct, tag_field="type", tag="url"):
    """Where an image or document is."""

    url: str


class PlainText(Struct, tag_field="type", tag="text"):
    """A document that is text."""

    data: str


class Image(Struct, tag_field="type", tag="image"):
    """An image."""

    source: Base64 | Url


class Document(Struct, tag_field="type", tag="document"):
    """A document."""

    source: Base64 | PlainText
    title: str | None = None


class ToolUse(Struct, tag_field="type", tag="tool_use"):
    """A call that the model has made."""

    id: str
    name: str
    input: Raw


class ToolResult(Struct, tag_field="type", tag="tool_result"):
    """What came of a call."""

    tool_use_id: str
    content: str | list[Text | Image | Document] | None = None


class Thinking(Struct, tag_field="type", tag="thinking"):
    """A thought, and the provider's signature of it where one thinks that signs."""

    thinking: str
    signature: str = ""


class RedactedThinking(Struct, tag_field="type", tag="redacted_thinking"):
    """A thought that is not told."""

    data: str


Said = Text | Image | Document
Block = Said | ToolUse | ToolResult | Thinking | RedactedThinking


class Message(Struct):
    """What one side says."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]

    @property
    def blocks(self) -> list[Block]:
        """Give the content as blocks."""
        return [Text(self.content)] if isinstance(self.content, str) else self.content


class Tool(Struct):
    """A tool of the client's; those that run at Anthropic have other types."""

    name: str = ""
    description: str | None = None
    input_schema: Raw = Raw(b"{}")
    strict: bool | None = None
    type: str | None = None


class ToolChoice(Struct):
    """Whether the model calls tools, and which."""

    type: Literal["auto", "any", "tool", "none"]
    name: str = ""
    disable_parallel_tool_use: bool = False


class ThinkingConfig(Struct):
    """Whether the model thinks before it answers."""

    type: Literal["enabled", "adaptive", "disabled", "between_tools"]
    budget_tokens: int = 0
    display: str | None = None


class SchemaFormat(Struct, tag_field="type", tag="json_schema"):
    """An answer after a schema."""

    schema: Raw


class OutputConfig(Struct):
    """How the model answers."""

    effort: Literal["low", "medium", "high", "xhigh", "max"] | None = None
    format: SchemaFormat | None = None


class Metadata(Struct):
    """Whom the request is for."""

    user_id: str | None = None


class MessageRequest(Struct):
    """A request."""

    model: str
    max_tokens: int
    messages: list[Message]
    system: str | list[Text] | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    metadata: Metadata | None = None
    container: object = None
    mcp_servers: object = None

    @property
    def tells_thoughts(self) -> bool:
        """Tell whether the client wants to read what the model thinks."""
        thinking = self.thinking
        return (
            thinking is not None
            and thinking.type in ("enabled", "adaptive")
            and thinking.display != "omitted"
        )
