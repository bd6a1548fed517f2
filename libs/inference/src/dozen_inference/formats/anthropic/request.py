"""Requests for chat completions, as requests to Anthropic's Messages API."""

import re

from msgspec import Raw

from dozen_inference.formats.anthropic.blocks import (
    MessagesRequest,
    Metadata,
    OutputConfig,
    SchemaFormat,
    Thinking,
    Tool,
    ToolChoice,
)
from dozen_inference.formats.anthropic.turns import read_turns
from dozen_inference.formats.chat import ChatRequest, TextFormat
from dozen_inference.formats.chat import SchemaFormat as AskedSchema
from dozen_inference.formats.chat import Tool as AskedTool
from dozen_inference.formats.messages import is_given
from dozen_inference.formats.refusals import NotSupported

DEFAULT_MAX_TOKENS = 8192
"""Where neither the client nor the gateway limits the answer; Anthropic's API has no default."""

_NO_PARAMETERS = Raw(b'{"type":"object","properties":{}}')
_VERSION = re.compile(r"claude-(?:[a-z]+-)?(\d{1,2})(?:[-.](\d{1,2}))?(?![\d])")
_ADAPTIVE_SINCE = (4, 6)
"""Models before think within a budget, and know no effort."""
_EFFORTS = {"minimal": "low"}
_BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 16384}
_MOST_BUDGET = 32768
_LEAST_BUDGET = 1024


def messages_request(chat: ChatRequest, model: str) -> MessagesRequest:
    """Translate a request; raise where Anthropic's API cannot say it."""
    _check(chat)
    system, turns = read_turns(chat.messages)
    most_tokens = chat.most_tokens or DEFAULT_MAX_TOKENS
    names = chat.choice.names if chat.choice else None
    tools = [_tool(tool) for tool in chat.tools or () if names is None or tool.function.name in names]
    choice = _tool_choice(chat) if tools else None
    is_forced = choice is not None and choice.type in ("any", "tool")
    thinking, effort = _thinking(chat, model, most_tokens, is_forced=is_forced)
    schema = None
    if isinstance(chat.response_format, AskedSchema):
        schema = SchemaFormat(chat.response_format.json_schema.schema)
    return MessagesRequest(
        model=model,
        max_tokens=most_tokens,
        messages=turns,
        system=system or None,
        stream=True if chat.stream else None,
        stop_sequences=chat.stops,
        temperature=None if chat.temperature is None else min(chat.temperature, 1.0),
        top_p=chat.top_p,
        top_k=chat.top_k,
        tools=tools or None,
        tool_choice=choice,
        thinking=chat.thinking if is_given(chat.thinking) else thinking,
        output_config=OutputConfig(effort, schema) if effort or schema else None,
        metadata=Metadata(chat.user_id) if chat.user_id else None,
        cache_control=chat.cache_control,
    )


def _check(chat: ChatRequest) -> None:
    if (chat.n or 1) > 1:
        raise NotSupported("n", "it gives one choice")
    if chat.logprobs or chat.top_logprobs:
        raise NotSupported("logprobs", "it does not tell them")
    for name in ("presence_penalty", "frequency_penalty"):
        if getattr(chat, name):
            raise NotSupported(name, "it has no penalties")
    if isinstance(chat.response_format, AskedSchema):
        if not is_given(chat.response_format.json_schema.schema):
            raise NotSupported("response_format.json_schema.schema", "it needs one")
    elif chat.response_format is not None and not isinstance(chat.response_format, TextFormat):
        raise NotSupported("response_format", "it gives JSON only after a schema (`json_schema`)")


def _tool(tool: AskedTool) -> Tool:
    function = tool.function
    return Tool(
        name=function.name,
        input_schema=function.parameters if is_given(function.parameters) else _NO_PARAMETERS,
        description=function.description,
        strict=function.strict or None,
        cache_control=tool.cache_control,
    )


def _tool_choice(chat: ChatRequest) -> ToolChoice | None:
    asked = chat.choice
    alone = True if chat.parallel_tool_calls is False else None
    if asked is None:
        return ToolChoice("auto", disable_parallel_tool_use=alone) if alone else None
    if asked.mode == "none":
        return ToolChoice("none")
    if asked.mode == "auto":
        return ToolChoice("auto", disable_parallel_tool_use=alone)
    if asked.names is not None and len(asked.names) == 1:
        return ToolChoice("tool", asked.names[0], alone)
    return ToolChoice("any", disable_parallel_tool_use=alone)


def _thinking(
    chat: ChatRequest, model: str, most_tokens: int, *, is_forced: bool
) -> tuple[Thinking | None, str | None]:
    """Give how to think and with which effort; a call that is forced is made without thinking."""
    effort = chat.reasoning_effort
    if effort is None:
        return None, None
    if effort == "none":
        return Thinking("disabled"), None
    if _is_adaptive(model):
        adaptive = None if is_forced else Thinking("adaptive", display="summarized")
        return adaptive, _EFFORTS.get(effort, effort)
    budget = min(_BUDGETS.get(effort, _MOST_BUDGET), most_tokens - 1)
    if is_forced or budget < _LEAST_BUDGET:
        return None, None
    return Thinking("enabled", budget), None


def _is_adaptive(model: str) -> bool:
    """Tell whether a model decides itself how much to think; one without a version is taken for a new one."""
    found = _VERSION.search(model)
    return found is None or (int(found[1]), int(found[2] or 0)) >= _ADAPTIVE_SINCE
