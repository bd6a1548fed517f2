"""Chat completions that are asked for a response."""

from collections.abc import Sequence
from typing import Any

import msgspec

from dozen_chat.domain.chat_messages import chat_messages
from dozen_chat.domain.items import Item
from dozen_chat.domain.response_options import NONE, FunctionTool, JsonObject, JsonSchema, ToolChoice
from dozen_chat.domain.response_request import Asked, ResponseRequest

_PASSED_ON = ("temperature", "top_p", "user", "safety_identifier", "prompt_cache_key")


def chat_request(asked: Asked, items: Sequence[Item]) -> bytes:
    """Give the body of a chat completion; `items` are all that the model is to know, in order."""
    request = asked.request
    body: dict[str, Any] = {**asked.passed_on, "model": request.model}
    body["messages"] = chat_messages(request.instructions, items)
    for name in _PASSED_ON:
        if (value := getattr(request, name)) is not None:
            body[name] = value
    if request.max_output_tokens is not None:
        body["max_completion_tokens"] = request.max_output_tokens
    if request.reasoning is not None and request.reasoning.effort is not None:
        body["reasoning_effort"] = request.reasoning.effort
    if request.with_logprobs:
        body |= {"logprobs": True, "top_logprobs": request.top_logprobs or 0}
    body |= _text(request)
    body |= _tools(request, asked.tools)
    if request.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode(body)


def _text(request: ResponseRequest) -> dict[str, Any]:
    text = request.text
    fields: dict[str, Any] = {}
    if text is None:
        return fields
    if text.verbosity:
        fields["verbosity"] = text.verbosity
    match text.format:
        case JsonObject():
            fields["response_format"] = {"type": "json_object"}
        case JsonSchema() as form:
            schema: dict[str, Any] = {"name": form.name, "schema": form.schema}
            if form.description:
                schema["description"] = form.description
            if form.strict is not None:
                schema["strict"] = form.strict
            fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return fields


def _tools(request: ResponseRequest, tools: Sequence[FunctionTool]) -> dict[str, Any]:
    choice: Any = request.tool_choice
    if isinstance(choice, ToolChoice):
        if choice.tools:
            allowed = {tool.get("name") for tool in choice.tools}
            tools = [tool for tool in tools if tool.name in allowed]
            choice = choice.mode
        else:
            choice = {"type": "function", "function": {"name": choice.name}}
    if not tools:
        return {}
    fields: dict[str, Any] = {"tools": [{"type": "function", "function": _function(tool)} for tool in tools]}
    if choice is not None:
        fields["tool_choice"] = choice
    if request.parallel_tool_calls is not None:
        fields["parallel_tool_calls"] = request.parallel_tool_calls
    return fields


def _function(tool: FunctionTool) -> dict[str, Any]:
    names = ("name", "description", "parameters", "strict")
    return {name: value for name in names if (value := getattr(tool, name)) not in (None, NONE)}
