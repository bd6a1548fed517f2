"""Responses: what came of a request, in the form of the Responses API."""

from typing import Literal, TypeAlias

import msgspec

from dozen_chat.domain.chat_answer import ChatUsage
from dozen_chat.domain.items import Item
from dozen_chat.domain.response_options import (
    ConversationId,
    FunctionTool,
    ReasoningOptions,
    Text,
    ToolChoice,
)
from dozen_chat.domain.response_request import Asked

ResponseStatus: TypeAlias = Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]


class CachedTokens(msgspec.Struct):
    """Input tokens that were taken from a cache, or put into it."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class ReasoningTokens(msgspec.Struct):
    """Output tokens that were thought only."""

    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct):
    """The tokens of a response."""

    input_tokens: int
    input_tokens_details: CachedTokens
    output_tokens: int
    output_tokens_details: ReasoningTokens
    total_tokens: int


class ResponseError(msgspec.Struct):
    """Why a response failed."""

    code: str
    message: str


class IncompleteDetails(msgspec.Struct):
    """Why a response is incomplete."""

    reason: Literal["max_output_tokens", "content_filter"]


class Response(msgspec.Struct, kw_only=True):
    """A response."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    status: ResponseStatus = "in_progress"
    background: bool = False
    completed_at: int | None = None
    error: ResponseError | None = None
    incomplete_details: IncompleteDetails | None = None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    parallel_tool_calls: bool
    previous_response_id: str | None
    conversation: ConversationId | None
    prompt_cache_key: str | None
    reasoning: ReasoningOptions
    safety_identifier: str | None
    service_tier: str = "default"
    store: bool
    temperature: float | None
    text: Text
    tool_choice: str | ToolChoice
    tools: list[FunctionTool]
    top_logprobs: int
    top_p: float | None
    truncation: Literal["disabled"] = "disabled"
    """Nothing is ever left out of what a model is to know."""
    usage: ResponseUsage | None = None
    user: str | None
    metadata: dict[str, str]
    output: list[Item] = msgspec.field(default_factory=list)
    """The last field; see `write_apart`."""


def new_response(response_id: str, created_at: int, asked: Asked) -> Response:
    """Give the response to a request, as it is before there is an answer."""
    request = asked.request
    conversation_id = request.conversation_id
    return Response(
        id=response_id,
        created_at=created_at,
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        max_tool_calls=request.max_tool_calls,
        model=request.model,
        parallel_tool_calls=request.parallel_tool_calls is not False,
        previous_response_id=request.previous_response_id,
        conversation=ConversationId(conversation_id) if conversation_id else None,
        prompt_cache_key=request.prompt_cache_key,
        reasoning=request.reasoning or ReasoningOptions(),
        safety_identifier=request.safety_identifier,
        store=request.is_stored,
        temperature=request.temperature,
        text=request.text or Text(),
        tool_choice=request.tool_choice or "auto",
        tools=asked.tools,
        top_logprobs=request.top_logprobs or 0,
        top_p=request.top_p,
        user=request.user,
        metadata=request.metadata or {},
    )


def write_apart(response: Response) -> tuple[bytes, bytes]:
    """Write a response without its output, and that."""
    output = msgspec.json.encode(response.output)
    return msgspec.json.encode(response)[: -len(output) - 1], output


def join(body: bytes, output: bytes) -> bytes:
    """Give a response that was written apart."""
    return body + output + b"}"


def response_usage(usage: ChatUsage) -> ResponseUsage:
    """Give the usage of a chat completion as that of a response."""
    read, written = usage.prompt_tokens_details, usage.completion_tokens_details
    output_tokens = usage.completion_tokens or 0
    return ResponseUsage(
        input_tokens=usage.prompt_tokens,
        input_tokens_details=CachedTokens(
            read.cached_tokens or 0 if read else 0, read.cache_write_tokens or 0 if read else 0
        ),
        output_tokens=output_tokens,
        output_tokens_details=ReasoningTokens(written.reasoning_tokens or 0 if written else 0),
        total_tokens=usage.prompt_tokens + output_tokens,
    )
