"""What the imitated model says, and the events in which it says it."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

from dozen_testing.imitations.anthropic.requests import (
    Adaptive,
    AnyTool,
    Auto,
    Enabled,
    NoTool,
    OneTool,
    Request,
    Text,
    Tool,
    ToolResult,
)
from dozen_testing.imitations.anthropic.rules import SIGNATURE

THOUGHT = "What could they mean? — 考える"
_numbers = itertools.count(1)


def reply(request: Request, values: dict[str, Any]) -> dict[str, Any]:
    """Give a message: calls of the tools where there are any and none was called, else what was said, again.

    `values` are the values of properties that an argument or an answer after a schema has.
    """
    number, content = next(_numbers), []
    if isinstance(request.thinking, Enabled | Adaptive):
        content.append({"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE})
    stop_reason = "end_turn"
    called = _called(request)
    if called:
        stop_reason = "tool_use"
        for at, tool in enumerate(called):
            value = _instance(tool.input_schema, values)
            content.append(
                {"type": "tool_use", "id": f"toolu_{number:04}_{at}", "name": tool.name, "input": value}
            )
    elif request.output_config and request.output_config.format:
        value = _instance(request.output_config.format.schema, values)
        content.append({"type": "text", "text": json.dumps(value, ensure_ascii=False)})
    else:
        content.append({"type": "text", "text": f"You said: {_last_text(request)}"})
    words = len(content[-1].get("text", "").split())
    stop_sequence = next((stop for stop in request.stop_sequences or () if stop in str(content[-1])), None)
    if stop_sequence is not None:
        content[-1]["text"] = content[-1]["text"].partition(stop_sequence)[0]
        stop_reason = "stop_sequence"
    elif words > request.max_tokens:
        stop_reason = "max_tokens"
    return {
        "id": f"msg_{number:04}",
        "type": "message",
        "role": "assistant",
        "model": request.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": stop_sequence,
        "usage": {
            "input_tokens": 7,
            "cache_creation_input_tokens": 3,
            "cache_read_input_tokens": 20,
            "output_tokens": 11,
            "output_tokens_details": {"thinking_tokens": 4},
            "service_tier": "standard",
        },
    }


def events(message: dict[str, Any]) -> Iterator[bytes]:
    """Give the events of a streamed message."""
    usage = {**message["usage"], "output_tokens": 1}
    begun = {**message, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    yield event("message_start", message=begun)
    yield event("ping")
    for index, block in enumerate(message["content"]):
        yield event("content_block_start", index=index, content_block=_empty(block))
        for delta in _deltas(block):
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)
    ending = {"stop_reason": message["stop_reason"], "stop_sequence": message["stop_sequence"]}
    yield event("message_delta", delta=ending, usage={"output_tokens": message["usage"]["output_tokens"]})
    yield event("message_stop")


def event(kind: str, **fields: Any) -> bytes:
    """Give one event."""
    data = json.dumps({"type": kind, **fields}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


def _empty(block: dict[str, Any]) -> dict[str, Any]:
    if block["type"] == "text":
        return {**block, "text": ""}
    return (
        {**block, "input": {}} if block["type"] == "tool_use" else {**block, "thinking": "", "signature": ""}
    )


def _deltas(block: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if block["type"] == "text":
        yield from ({"type": "text_delta", "text": piece} for piece in _pieces(block["text"]))
    elif block["type"] == "tool_use":
        yield {"type": "input_json_delta", "partial_json": ""}
        whole = json.dumps(block["input"], ensure_ascii=False)
        yield from ({"type": "input_json_delta", "partial_json": piece} for piece in _pieces(whole))
    else:
        yield from ({"type": "thinking_delta", "thinking": piece} for piece in _pieces(block["thinking"]))
        yield {"type": "signature_delta", "signature": block["signature"]}


def _pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), 5):
        yield text[start : start + 5]


def _called(request: Request) -> list[Tool]:
    choice, tools = request.tool_choice or Auto(), request.tools or []
    if isinstance(choice, NoTool):
        return []
    if isinstance(choice, OneTool):
        return [tool for tool in tools if tool.name == choice.name]
    if any(isinstance(block, ToolResult) for block in request.messages[-1].blocks()):
        tools = tools if isinstance(choice, AnyTool) else []
    return tools[:1] if choice.disable_parallel_tool_use else tools


def _last_text(request: Request) -> str:
    found = []
    for block in request.messages[-1].blocks():
        if isinstance(block, Text):
            found.append(block.text)
        elif isinstance(block, ToolResult):
            inner = block.content or ""
            texts = (
                [inner] if isinstance(inner, str) else [one.text for one in inner if isinstance(one, Text)]
            )
            found.append(f"[{block.tool_use_id}] {''.join(texts)}")
        else:
            found.append(f"<{type(block).__name__.lower()}>")
    return " ".join(found)


def _instance(schema: dict[str, Any], values: dict[str, Any]) -> Any:
    """Give a value for a schema of objects with simple properties."""
    return {name: values.get(name, "東京") for name in schema.get("properties", {})}
