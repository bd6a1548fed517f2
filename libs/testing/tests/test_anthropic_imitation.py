"""The imitation of Anthropic's API is one to its official client, and refuses what the real one does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import ThinkingBlock, ToolUseBlock

from dozen_testing.http import serve
from dozen_testing.imitations.anthropic.api import AnthropicApi
from dozen_testing.imitations.anthropic.replies import THOUGHT
from dozen_testing.imitations.script import Refused

MODEL = "claude-sonnet-5-5"
USER: Any = {"role": "user", "content": "Grüße 東京"}
WEATHER: Any = {
    "name": "get_weather",
    "description": "Tells the weather.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
TIME: Any = {"name": "get_time", "input_schema": {"type": "object", "properties": {}}}
CALLED = {
    "role": "assistant",
    "content": [{"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {}}],
}
RESULT = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny"}


@pytest.fixture
def api() -> AnthropicApi:
    return AnthropicApi("secret", values={"city": "東京"})


@asynccontextmanager
async def client_of(api: AnthropicApi, **options: Any) -> AsyncIterator[AsyncAnthropic]:
    async with (
        serve(api) as url,
        AsyncAnthropic(base_url=url, **{"api_key": "secret", "max_retries": 0, **options}) as client,
    ):
        yield client


async def create(api: AnthropicApi, **fields: Any) -> Any:
    async with client_of(api) as client:
        asked: dict[str, Any] = {"model": MODEL, "max_tokens": 4096, "messages": [USER], **fields}
        return await client.messages.create(**asked)


async def listen(api: AnthropicApi) -> list[str]:
    async with client_of(api) as client:
        stream = await client.messages.create(model=MODEL, max_tokens=9, messages=[USER], stream=True)
        return [event.type async for event in stream]


async def test_it_answers(api: AnthropicApi) -> None:
    message = await create(api)
    assert message.content[0].text == "You said: Grüße 東京"
    assert (message.stop_reason, message.usage.cache_read_input_tokens) == ("end_turn", 20)
    assert api.script.headers[0]["anthropic-version"] == "2026-10-21"


@pytest.mark.parametrize("split", [None, 1, 7])
async def test_its_streams_are_taken_by_the_client(api: AnthropicApi, split: int | None) -> None:
    api.script.split = split
    async with (
        client_of(api) as client,
        client.messages.stream(
            model=MODEL,
            max_tokens=4096,
            messages=[USER],
            tools=[WEATHER, TIME],
            thinking={"type": "enabled", "budget_tokens": 1024},
        ) as stream,
    ):
        message = await stream.get_final_message()
    thought, weather, clock = message.content
    assert isinstance(thought, ThinkingBlock)
    assert thought.thinking == THOUGHT
    assert isinstance(weather, ToolUseBlock)
    assert weather.input == {"city": "東京"}
    assert isinstance(clock, ToolUseBlock)
    assert clock.input == {}
    assert (message.stop_reason, message.usage.output_tokens) == ("tool_use", 11)


async def test_it_takes_whole_conversations(api: AnthropicApi) -> None:
    first = await create(api, tools=[WEATHER], thinking={"type": "adaptive"})
    call = first.content[1]
    result = {"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "sunny"}]}
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}}
    second = await create(
        api,
        tools=[WEATHER],
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[USER, first.to_param(), {"role": "user", "content": [result, image]}],
    )
    assert second.content[0].text == f"You said: [{call.id}] sunny <image>"


async def test_it_answers_after_a_schema_and_stops(api: AnthropicApi) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "additionalProperties": False}
    message = await create(api, output_config={"format": {"type": "json_schema", "schema": schema}})
    assert message.content[0].text == '{"city": "東京"}'
    message = await create(api, stop_sequences=["東"])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "東")
    assert message.content[0].text == "You said: Grüße "


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 1_000_000, "timeout": 5}, "max_tokens: 1000000 > 64000"),
        ({"extra_body": {"n": 2}}, "n: Extra inputs are not permitted"),
        ({"extra_body": {"temperature": 0.5}}, "temperature: Extra inputs"),
        ({"messages": []}, "at least one message"),
        ({"messages": [{"role": "assistant", "content": "Hi"}]}, 'must use the "user" role'),
        ({"messages": [{"role": "system", "content": "Hi"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": ""}]}, "must be non-empty"),
        ({"messages": [{"role": "user", "content": []}]}, "non-empty content"),
        ({"messages": [USER, {"role": "assistant", "content": "So: "}]}, "trailing whitespace"),
        ({"messages": [USER, CALLED, USER]}, "without `tool_result` blocks"),
        ({"messages": [USER, CALLED]}, "without results"),
        ({"messages": [{"role": "user", "content": [RESULT]}]}, "unexpected `tool_use_id`"),
        (
            {
                "messages": [
                    USER,
                    CALLED,
                    {"role": "user", "content": [{"type": "text", "text": "So"}, RESULT]},
                ]
            },
            "must come first",
        ),
        ({"tool_choice": {"type": "any"}}, "while providing tools"),
        ({"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "other"}}, "not found"),
        ({"tools": [WEATHER, WEATHER]}, "unique"),
        ({"tools": [{**WEATHER, "name": "get weather"}]}, "should match pattern"),
        ({"tools": [{**WEATHER, "input_schema": {"type": "string"}}]}, "input_schema.type"),
        ({"tools": [{**WEATHER, "parameters": {}}]}, "parameters: Extra inputs"),
        ({"thinking": {"type": "enabled", "budget_tokens": 100}}, "budget_tokens"),
        ({"thinking": {"type": "enabled", "budget_tokens": 4096}}, "must be greater"),
        (
            {
                "thinking": {"type": "enabled", "budget_tokens": 1024},
                "tools": [WEATHER],
                "tool_choice": {"type": "any"},
            },
            "forces tool use",
        ),
        (
            {
                "messages": [
                    USER,
                    {
                        "role": "assistant",
                        "content": [{"type": "thinking", "thinking": "Hm", "signature": "x"}],
                    },
                    USER,
                ]
            },
            "signature",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {"type": "image", "source": {"type": "url", "url": "http://example.com/a.png"}}
                        ],
                    }
                ]
            },
            "HTTPS",
        ),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}}}, "additional"),
        ({"stop_sequences": [" "]}, "non-whitespace"),
        ({"metadata": {"user_id": "u", "team": "t"}}, "metadata.team: Extra inputs"),
    ],
)
async def test_it_refuses_what_is_not_valid(api: AnthropicApi, fields: dict[str, Any], told: str) -> None:
    with pytest.raises(anthropic.BadRequestError) as refused:
        await create(api, **fields)
    body: Any = refused.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
    assert told in body["error"]["message"]
    assert refused.value.request_id == body["request_id"]
    assert not api.script.bodies


async def test_it_needs_the_key_the_version_and_a_model(api: AnthropicApi) -> None:
    async with client_of(api, api_key="wrong") as client:
        with pytest.raises(anthropic.AuthenticationError):
            await client.messages.create(model=MODEL, max_tokens=1, messages=[USER])
    async with client_of(api, default_headers={"anthropic-version": "2020-01-01"}) as client:
        with pytest.raises(anthropic.BadRequestError, match="anthropic-version"):
            await client.messages.create(model=MODEL, max_tokens=1, messages=[USER])
    with pytest.raises(anthropic.NotFoundError):
        await create(api, model="gpt-7")
    with pytest.raises(anthropic.BadRequestError, match="max_tokens: Field required"):
        async with client_of(api) as client:
            await client.post("/v1/messages", body={"model": MODEL, "messages": [USER]}, cast_to=object)


async def test_sampling_is_refused_by_the_new_version_only(api: AnthropicApi) -> None:
    older = {"anthropic-version": "2023-06-01"}
    await create(api, extra_headers=older, extra_body={"temperature": 1, "top_p": 0.5, "top_k": 3})
    with pytest.raises(anthropic.BadRequestError, match="range"):
        await create(api, extra_headers=older, extra_body={"temperature": 1.5})


async def test_it_fails_as_it_is_told(api: AnthropicApi) -> None:
    api.script.refusal = Refused(529, "overloaded_error", "Overloaded")
    with pytest.raises(anthropic.OverloadedError):
        await create(api)
    api.script.refusal, api.script.fails_after = None, 4
    with pytest.raises(anthropic.APIStatusError, match="overloaded_error"):
        await listen(api)
    api.script.fails_after, api.script.cuts_after = None, 4
    with pytest.raises(httpx2.RemoteProtocolError):
        await listen(api)
    api.script.cuts_after = None
    assert (await listen(api))[-1] == "message_stop"


async def test_it_notes_who_leaves(api: AnthropicApi) -> None:
    api.script.permits = asyncio.Semaphore(2)
    async with client_of(api) as client:
        stream = await client.messages.create(model=MODEL, max_tokens=9, messages=[USER], stream=True)
        await anext(aiter(stream))
        await stream.close()
        async with asyncio.timeout(5):
            await api.script.left.wait()
