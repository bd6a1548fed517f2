"""Requests for chat completions, as requests to generate content."""

from typing import Any, Literal

from msgspec import Raw, Struct

from dozen_inference.formats.chat import ChatRequest, TextFormat
from dozen_inference.formats.chat import SchemaFormat as AskedSchema
from dozen_inference.formats.chat import Tool as AskedTool
from dozen_inference.formats.gemini.contents import Content, model_generation, read_contents
from dozen_inference.formats.messages import ABSENT, is_given
from dozen_inference.formats.refusals import NotSupported

Mode = Literal["NONE", "AUTO", "ANY", "VALIDATED"]

_MOST_CHOICES = 8
_MODES: dict[str, Mode] = {"none": "NONE", "auto": "AUTO", "required": "ANY"}
# As Google maps them in its own imitation of OpenAI's API: since the third generation by level.
_LEVELS = {"none": "MINIMAL", "minimal": "MINIMAL", "low": "LOW", "medium": "MEDIUM"}
_BUDGETS = {"none": 0, "minimal": 1024, "low": 1024, "medium": 8192}
_MOST_BUDGET = 24576


class FunctionDeclaration(Struct, rename="camel", omit_defaults=True):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters_json_schema: Raw = ABSENT


class Tool(Struct, rename="camel"):
    """Functions that the model may call."""

    function_declarations: list[FunctionDeclaration]


class FunctionCallingConfig(Struct, rename="camel", omit_defaults=True):
    """Whether the model calls functions, and which."""

    mode: Mode
    allowed_function_names: list[str] | None = None


class ToolConfig(Struct, rename="camel"):
    """Whether the model calls functions, and which."""

    function_calling_config: FunctionCallingConfig


class ThinkingConfig(Struct, rename="camel", omit_defaults=True):
    """Whether and how much the model thinks, and whether it tells."""

    include_thoughts: bool | None = None
    thinking_budget: int | None = None
    thinking_level: str | None = None


class GenerationConfig(Struct, rename="camel", omit_defaults=True):
    """How to generate."""

    candidate_count: int | None = None
    stop_sequences: list[str] | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_logprobs: bool | None = None
    logprobs: int | None = None
    response_mime_type: str | None = None
    response_json_schema: Any = None
    thinking_config: ThinkingConfig | None = None


class GenerateRequest(Struct, rename="camel", omit_defaults=True):
    """A request."""

    contents: list[Content]
    generation_config: GenerationConfig
    system_instruction: Content | None = None
    tools: list[Tool] | None = None
    tool_config: ToolConfig | None = None


def generate_request(chat: ChatRequest, model: str) -> GenerateRequest:
    """Translate a request; raise where Gemini's API cannot say it."""
    _check(chat)
    system, contents = read_contents(chat.messages, model)
    tools = [_declaration(tool) for tool in chat.tools or ()]
    return GenerateRequest(
        contents=contents,
        generation_config=_generation_config(chat, model),
        system_instruction=system,
        tools=[Tool(tools)] if tools else None,
        tool_config=_tool_config(chat) if tools else None,
    )


def _check(chat: ChatRequest) -> None:
    choices = chat.n or 1
    if choices > _MOST_CHOICES or (chat.stream and choices > 1):
        raise NotSupported("n", f"it gives {_MOST_CHOICES} choices at most, and streams one")
    if chat.tools and chat.parallel_tool_calls is False:
        raise NotSupported("parallel_tool_calls", "it may always call several tools at once")


def _declaration(tool: AskedTool) -> FunctionDeclaration:
    function = tool.function
    parameters = function.parameters if is_given(function.parameters) else ABSENT
    return FunctionDeclaration(function.name, function.description, parameters)


def _tool_config(chat: ChatRequest) -> ToolConfig | None:
    choice = chat.choice
    if choice is None:
        return None
    mode = _MODES[choice.mode]
    if choice.names is not None and mode == "AUTO":
        mode = "VALIDATED"  # where text is an answer too, only this one takes names
    return ToolConfig(FunctionCallingConfig(mode, choice.names))


def _generation_config(chat: ChatRequest, model: str) -> GenerationConfig:
    asked, schema = chat.response_format, None
    if isinstance(asked, AskedSchema) and is_given(asked.json_schema.schema):
        schema = asked.json_schema.schema
    is_text = asked is None or isinstance(asked, TextFormat)
    return GenerationConfig(
        candidate_count=chat.n if (chat.n or 1) > 1 else None,
        stop_sequences=chat.stops,
        max_output_tokens=chat.most_tokens,
        temperature=chat.temperature,
        top_p=chat.top_p,
        top_k=chat.top_k,
        seed=chat.seed,
        presence_penalty=chat.presence_penalty,
        frequency_penalty=chat.frequency_penalty,
        response_logprobs=True if chat.logprobs else None,
        logprobs=chat.top_logprobs or None if chat.logprobs else None,
        response_mime_type=None if is_text else "application/json",
        response_json_schema=schema,
        thinking_config=_thinking_config(chat, model),
    )


def _thinking_config(chat: ChatRequest, model: str) -> ThinkingConfig | None:
    effort = chat.reasoning_effort
    if effort is None:
        return None
    told = True if effort != "none" else None
    if model_generation(model) >= 3:
        return ThinkingConfig(told, thinking_level=_LEVELS.get(effort, "HIGH"))
    return ThinkingConfig(told, thinking_budget=_BUDGETS.get(effort, _MOST_BUDGET))
