"""What the Messages API refuses beyond fields that it does not know."""

import base64
import binascii
import json
import re
from typing import Any

import msgspec

from dozen_testing.imitations.anthropic.requests import (
    AnyTool,
    Document,
    Enabled,
    Image,
    Message,
    OneTool,
    RedactedThought,
    Request,
    Text,
    Thought,
    ToolResult,
    ToolUse,
    Url,
)
from dozen_testing.imitations.script import Refused

VERSIONS = ("2023-06-01", "2026-10-21")
SIGNATURE = "c2lnbmVkIGJ5IHRoZSBpbWl0YXRpb24="

_MOST_TOKENS = 64_000
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")
_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")


def refuse(message: str) -> Refused:
    """Give the refusal of a request that is not valid."""
    return Refused(400, "invalid_request_error", message)


def read_request(body: Any, version: str) -> Request:
    """Read a request; raise unless the real API would take it."""
    if version == VERSIONS[1]:
        for name in ("temperature", "top_p", "top_k"):
            if name in body:
                raise refuse(f"{name}: Extra inputs are not permitted")
    try:
        request = msgspec.json.decode(json.dumps(body).encode(), type=Request)
    except msgspec.ValidationError as error:
        raise refuse(_validation(str(error))) from error
    _check_numbers(request)
    _check_messages(request.messages)
    _check_tools(request)
    _check_thinking(request)
    if request.output_config and request.output_config.format:
        _check_schema(request.output_config.format.schema)
    return request


def _validation(told: str) -> str:
    message, _, place = told.partition(" - at `$")
    place = place.strip(".`").replace("[", ".").replace("]", "")
    if found := re.fullmatch(r"Object missing required field `(.*)`", message):
        return f"{f'{place}.' if place else ''}{found[1]}: Field required"
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", message):
        return f"{f'{place}.' if place else ''}{found[1]}: Extra inputs are not permitted"
    return f"{place}: {message}"


def _check_numbers(request: Request) -> None:
    if request.max_tokens < 1:
        raise refuse("max_tokens: Input should be greater than or equal to 1")
    if request.max_tokens > _MOST_TOKENS:
        raise refuse(
            f"max_tokens: {request.max_tokens} > {_MOST_TOKENS}, which is the maximum allowed number of"
            f" output tokens for {request.model}"
        )
    for name in ("temperature", "top_p"):
        value = getattr(request, name)
        if value is not None and not 0 <= value <= 1:
            raise refuse(f"{name}: range: 0..1")
    for stop in request.stop_sequences or ():
        if not stop.strip():
            raise refuse("stop_sequences: each stop sequence must contain non-whitespace")


def _check_messages(messages: list[Message]) -> None:
    if not messages:
        raise refuse("messages: at least one message is required")
    if messages[0].role != "user":
        raise refuse('messages: first message must use the "user" role')
    asked: list[str] = []
    for index, message in enumerate(messages):
        place, blocks = f"messages.{index}", message.blocks()
        if not blocks:
            raise refuse(f"{place}: all messages must have non-empty content")
        for at, block in enumerate(blocks):
            _check_block(message.role, block, f"{place}.content.{at}")
        results = [block.tool_use_id for block in blocks if isinstance(block, ToolResult)]
        for identifier in results:
            if identifier not in asked:
                raise refuse(f"{place}: unexpected `tool_use_id` found in `tool_result` blocks: {identifier}")
        if missing := [identifier for identifier in asked if identifier not in results]:
            raise refuse(
                f"{place}: `tool_use` ids were found without `tool_result` blocks immediately after:"
                f" {missing}"
            )
        if any(isinstance(block, ToolResult) for block in blocks[len(results) :]):
            raise refuse(f"{place}: `tool_result` blocks must come first")
        asked = [block.id for block in blocks if isinstance(block, ToolUse)]
        if len(set(asked)) < len(asked):
            raise refuse(f"{place}: `tool_use` ids must be unique")
    last = messages[-1].blocks()[-1]
    if asked:
        raise refuse("messages: the last message has `tool_use` blocks without results")
    if messages[-1].role == "assistant" and isinstance(last, Text) and last.text != last.text.rstrip():
        raise refuse("messages: final assistant content cannot end with trailing whitespace")


def _check_block(role: str, block: Any, place: str) -> None:
    if isinstance(block, Text) and not block.text:
        raise refuse("messages: text content blocks must be non-empty")
    if isinstance(block, ToolUse | Thought | RedactedThought) and role != "assistant":
        raise refuse(f"{place}: `{type(block).__name__}` blocks can only be in assistant messages")
    if isinstance(block, ToolResult | Image | Document) and role != "user":
        raise refuse(f"{place}: `{type(block).__name__}` blocks can only be in user messages")
    if isinstance(block, ToolUse) and not _NAME.fullmatch(block.id):
        raise refuse(f"{place}.id: String should match pattern '^[a-zA-Z0-9_-]+$'")
    if isinstance(block, Thought) and block.signature != SIGNATURE:
        raise refuse(f"{place}: Invalid `signature` in `thinking` block")
    if isinstance(block, ToolResult) and isinstance(block.content, list):
        for at, inner in enumerate(block.content):
            _check_block("user", inner, f"{place}.content.{at}")
    if isinstance(block, Image | Document):
        _check_source(block, place)


def _check_source(block: Image | Document, place: str) -> None:
    source = block.source
    if isinstance(source, Url):
        if not source.url.startswith("https://"):
            raise refuse(f"{place}.source.url: Only HTTPS URLs are supported")
        return
    kinds = _IMAGES if isinstance(block, Image) else ("application/pdf",)
    if source.media_type not in kinds:
        raise refuse(f"{place}.source.base64.media_type: Input should be one of {kinds}")
    try:
        base64.b64decode(source.data, validate=True)
    except binascii.Error as error:
        raise refuse(f"{place}.source.base64: invalid base64 data") from error


def _check_tools(request: Request) -> None:
    names = [tool.name for tool in request.tools or ()]
    if request.tool_choice is not None and not names:
        raise refuse("tool_choice: tool_choice may only be specified while providing tools")
    if len(set(names)) < len(names):
        raise refuse("tools: Tool names must be unique.")
    for index, tool in enumerate(request.tools or ()):
        if not _NAME.fullmatch(tool.name):
            raise refuse(f"tools.{index}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
        if tool.input_schema.get("type") != "object":
            raise refuse(f"tools.{index}.custom.input_schema.type: Input should be 'object'")
    choice = request.tool_choice
    if isinstance(choice, OneTool) and choice.name not in names:
        raise refuse(f"tool_choice.name: Tool '{choice.name}' not found in provided tools")


def _check_thinking(request: Request) -> None:
    thinking = request.thinking
    if not isinstance(thinking, Enabled):
        return
    if thinking.budget_tokens < 1024:
        raise refuse("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
    if thinking.budget_tokens >= request.max_tokens:
        raise refuse("max_tokens: `max_tokens` must be greater than `thinking.budget_tokens`")
    if isinstance(request.tool_choice, AnyTool | OneTool):
        raise refuse("thinking: Thinking may not be enabled when tool_choice forces tool use.")
    if request.temperature not in (None, 1):
        raise refuse("temperature: `temperature` may only be set to 1 when thinking is enabled")


def _check_schema(schema: Any) -> None:
    if isinstance(schema, list):
        for one in schema:
            _check_schema(one)
    elif isinstance(schema, dict):
        if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
            raise refuse(
                "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly"
                " set to false"
            )
        for one in schema.values():
            _check_schema(one)
