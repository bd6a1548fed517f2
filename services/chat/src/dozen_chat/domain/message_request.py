"""Requests of Anthropic's Messages API, as the chat completions that they ask for.

What only hints (`cache_control`, `service_tier`, …) is left out, and so are fields that are not known.
"""

from collections.abc import Iterator
from typing import Any

import msgspec

from dozen_chat.domain.invalid import Invalid, decode
from dozen_chat.domain.message_blocks import (
    Base64,
    Image,
    Message,
    MessageRequest,
    PlainText,
    RedactedThinking,
    Said,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
)

_CHOICES = {"auto": "auto", "any": "required", "none": "none"}
_PASSED_ON = ("temperature", "top_p", "top_k")
# What a budget of tokens for thoughts comes to, up to so many.
_EFFORTS = ((4096, "low"), (16384, "medium"))


def read_message_request(body: bytes) -> MessageRequest:
    """Read a request; raise `Invalid` where it is none, or asks for what only runs at Anthropic."""
    request = decode(body, MessageRequest)
    if request.max_tokens < 1:
        raise Invalid("'max_tokens' must be at least 1.", "max_tokens")
    if not request.messages:
        raise Invalid("'messages' must hold at least one message.", "messages")
    for name in ("container", "mcp_servers"):
        if getattr(request, name):
            raise Invalid(f"'{name}' is for what runs at Anthropic only.", name)
    return request


def chat_body(request: MessageRequest) -> bytes:
    """Give the body of the chat completion that a request asks for."""
    messages = [*_system(request.system)]
    for index, message in enumerate(request.messages):
        messages += _messages(message, f"messages[{index}].content")
    body: dict[str, Any] = {
        "model": request.model,
        "messages": messages,
        "max_completion_tokens": request.max_tokens,
    }
    for name in _PASSED_ON:
        if (value := getattr(request, name)) is not None:
            body[name] = value
    if request.stop_sequences:
        body["stop"] = request.stop_sequences
    if request.metadata and request.metadata.user_id:
        body["user"] = request.metadata.user_id
    if request.tools:
        body |= _tools(request, request.tools)
    if effort := _effort(request):
        body["reasoning_effort"] = effort
    if request.output_config and request.output_config.format:
        schema = {"name": "answer", "schema": request.output_config.format.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode(body)


def _system(system: str | list[Text] | None) -> Iterator[dict[str, Any]]:
    text = system if isinstance(system, str) else "\n\n".join(block.text for block in system or ())
    if text:
        yield {"role": "system", "content": text}


def _messages(message: Message, place: str) -> Iterator[dict[str, Any]]:
    if message.role == "assistant":
        yield from _assistant(message, place)
        return
    if message.role == "system":
        said = [block for block in message.blocks if isinstance(block, Text)]
        if len(said) < len(message.blocks):
            raise Invalid("What the system says is text.", place)
        yield from _system(said)
        return
    parts: list[dict[str, Any]] = []
    for index, block in enumerate(message.blocks):
        if isinstance(block, ToolResult):
            yield {"role": "tool", "tool_call_id": block.tool_use_id, "content": _result_text(block)}
            # A tool's message has only text, so what else came of the call is shown after it.
            parts += [_part(shown) for shown in _result(block) if not isinstance(shown, Text)]
        elif isinstance(block, Said):
            parts.append(_part(block))
        else:
            raise Invalid("The user cannot say this.", f"{place}[{index}]")
    if len(parts) == 1 and parts[0]["type"] == "text":
        yield {"role": "user", "content": parts[0]["text"]}
    elif parts:
        yield {"role": "user", "content": parts}


def _assistant(message: Message, place: str) -> Iterator[dict[str, Any]]:
    texts: list[str] = []
    thoughts: list[str] = []
    signed: list[Thinking | RedactedThinking] = []
    calls: list[dict[str, Any]] = []
    for index, block in enumerate(message.blocks):
        if isinstance(block, Text):
            texts.append(block.text)
        elif isinstance(block, ToolUse):
            calls.append(_call(block))
        elif isinstance(block, Thinking):
            thoughts.append(block.thinking)
            signed += [block] if block.signature else []
        elif isinstance(block, RedactedThinking):
            signed.append(block)
        else:
            raise Invalid("The model cannot say this.", f"{place}[{index}]")
    said: dict[str, Any] = {"role": "assistant", "content": "".join(texts) or None}
    if thoughts:
        said["reasoning_content"] = "".join(thoughts)
    if signed:
        said["thinking_blocks"] = signed
    if calls:
        said["tool_calls"] = calls
    if texts or calls:
        yield said


def _call(block: ToolUse) -> dict[str, Any]:
    function = {"name": block.name, "arguments": bytes(block.input).decode()}
    return {"id": block.id, "type": "function", "function": function}


def _result(block: ToolResult) -> list[Said]:
    return [Text(block.content)] if isinstance(block.content, str) else [*(block.content or ())]


def _result_text(block: ToolResult) -> str:
    return "\n".join(said.text for said in _result(block) if isinstance(said, Text))


def _part(block: Said) -> dict[str, Any]:
    if isinstance(block, Text):
        return {"type": "text", "text": block.text}
    source = block.source
    if isinstance(source, PlainText):
        return {"type": "text", "text": source.data}
    url = f"data:{source.media_type};base64,{source.data}" if isinstance(source, Base64) else source.url
    if isinstance(block, Image):
        return {"type": "image_url", "image_url": {"url": url}}
    return {"type": "file", "file": {"filename": block.title or "document.pdf", "file_data": url}}


def _tools(request: MessageRequest, tools: list[Tool]) -> dict[str, Any]:
    fields: dict[str, Any] = {"tools": [_tool(tool, f"tools[{at}]") for at, tool in enumerate(tools)]}
    if choice := request.tool_choice:
        named = {"type": "function", "function": {"name": choice.name}}
        fields["tool_choice"] = named if choice.type == "tool" else _CHOICES[choice.type]
        if choice.disable_parallel_tool_use:
            fields["parallel_tool_calls"] = False
    return fields


def _tool(tool: Tool, place: str) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        raise Invalid(f"Tools of the type '{tool.type}' run at Anthropic only.", f"{place}.type")
    if not tool.name:
        raise Invalid("A tool needs a name.", f"{place}.name")
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _effort(request: MessageRequest) -> str | None:
    thinking, config = request.thinking, request.output_config
    if thinking is not None and thinking.type in ("disabled", "between_tools"):
        return None
    if config is not None and config.effort is not None:
        return "xhigh" if config.effort == "max" else config.effort
    if thinking is None:
        return None
    if thinking.type == "adaptive":
        return "high"  # as at Anthropic, where nothing is said of it
    return next((effort for most, effort in _EFFORTS if thinking.budget_tokens <= most), "high")
