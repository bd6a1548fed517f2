"""What a request to generate content may hold; any other field is refused."""

from typing import Any, Literal

import msgspec


class _Strict(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, rename="camel"):
    pass


class Blob(_Strict):
    """Content in base64."""

    mime_type: str
    data: str


class FileData(_Strict):
    """Content that is elsewhere."""

    file_uri: str
    mime_type: str | None = None


class FunctionCall(_Strict):
    """A call that the model has made."""

    name: str
    args: dict[str, Any] = {}
    id: str | None = None


class FunctionResponse(_Strict):
    """What came of a call."""

    name: str
    response: dict[str, Any]
    id: str | None = None


class Part(_Strict):
    """A piece of content."""

    text: str | None = None
    inline_data: Blob | None = None
    file_data: FileData | None = None
    function_call: FunctionCall | None = None
    function_response: FunctionResponse | None = None
    thought: bool | None = None
    thought_signature: str | None = None

    @property
    def data(self) -> list[Any]:
        """Give what it holds, which must be one thing."""
        held = (
            self.text, self.inline_data, self.file_data, self.function_call, self.function_response
        )  # fmt: skip
        return [one for one in held if one is not None]


class Content(_Strict):
    """What one side says."""

    parts: list[Part]
    role: str | None = None


class FunctionDeclaration(_Strict):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    parameters_json_schema: dict[str, Any] | None = None


class Tool(_Strict):
    """Functions that the model may call."""

    function_declarations: list[FunctionDeclaration]


class FunctionCallingConfig(_Strict):
    """Whether the model calls functions, and which."""

    mode: Literal["AUTO", "ANY", "NONE", "VALIDATED"] = "AUTO"
    allowed_function_names: list[str] | None = None


class ToolConfig(_Strict):
    """Whether the model calls functions, and which."""

    function_calling_config: FunctionCallingConfig | None = None


class ThinkingConfig(_Strict):
    """How the model thinks."""

    include_thoughts: bool = False
    thinking_budget: int | None = None
    thinking_level: Literal["MINIMAL", "LOW", "MEDIUM", "HIGH"] | None = None


class GenerationConfig(_Strict):
    """How to generate."""

    candidate_count: int = 1
    stop_sequences: list[str] | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: float | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_logprobs: bool = False
    logprobs: int | None = None
    response_mime_type: Literal["text/plain", "application/json"] = "text/plain"
    response_schema: dict[str, Any] | None = None
    response_json_schema: dict[str, Any] | None = None
    thinking_config: ThinkingConfig | None = None


class Request(_Strict):
    """A request."""

    contents: list[Content] = []
    generation_config: GenerationConfig = msgspec.field(default_factory=GenerationConfig)
    system_instruction: Content | None = None
    tools: list[Tool] | None = None
    tool_config: ToolConfig | None = None

    @property
    def functions(self) -> list[FunctionDeclaration]:
        """Give all functions that the model may call."""
        return [function for tool in self.tools or () for function in tool.function_declarations]

    @property
    def calling(self) -> FunctionCallingConfig:
        """Give whether the model calls functions."""
        asked = self.tool_config.function_calling_config if self.tool_config else None
        return asked or FunctionCallingConfig()
