"""Messages through Anthropic's client: on a real inference server, and on one that does as it is told."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import anthropic
import pytest
from anthropic import AsyncAnthropic
from anthropic.types import TextBlock, ToolUseBlock

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.postgres import Database
from dozen_chassis.run import serving
from dozen_chat.app import create_app
from dozen_chat.service.completions import PATH
from dozen_chat.service.messages import MESSAGES_PATH
from dozen_chat.settings import Settings
from dozen_testing.clients import anthropic_client
from dozen_testing.conditions import eventually
from dozen_testing.http import Signer, serve
from dozen_testing.inference import ToldUpstream

pytestmark = pytest.mark.integration

MODEL = "smollm2-135m-instruct"
USER: Any = {"role": "user", "content": "Count from one to twenty in words."}
WEATHER: Any = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 10}}
GREEDY = {"temperature": 0}
"""Which other versions of the API than the client's take."""
OPERATION = f"POST {MESSAGES_PATH}"


def event(**data: Any) -> bytes:
    fields = {"id": "chatcmpl-7", "model": MODEL, **data}
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + b"\n\n"


def delta(**fields: Any) -> bytes:
    return event(choices=[{"index": 0, "delta": fields, "finish_reason": None}])


def script(*deltas: bytes, finish: str = "stop") -> list[bytes]:
    end = event(choices=[{"index": 0, "delta": {}, "finish_reason": finish}])
    return [*deltas, end, event(choices=[], usage=USAGE), b"data: [DONE]\n\n"]


CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city":"東京"}'},
}
CALLING = script(
    delta(
        role="assistant",
        tool_calls=[{"index": 0, **CALL, "function": {"name": "get_weather", "arguments": ""}}],
    ),
    delta(tool_calls=[{"index": 0, "function": {"arguments": '{"city":'}}]),
    delta(tool_calls=[{"index": 0, "function": {"arguments": '"東京"}'}}]),
    finish="tool_calls",
)
SPEAKING = script(delta(role="assistant", content=""), delta(content="Grüße"), delta(content=" 東京"))
WHOLE = event(
    choices=[
        {
            "index": 0,
            "message": {"role": "assistant", "content": None, "tool_calls": [CALL]},
            "finish_reason": "tool_calls",
        }
    ],
    usage=USAGE,
)[6:]


@dataclass
class Stage:
    """A running chat service."""

    url: str
    client: AsyncAnthropic
    database: Database

    async def used(self) -> UsageRecord:
        """Wait for the one usage report."""

        async def look() -> list[UsageRecord]:
            rows = await self.database.pool.fetch("select payload from outbox")
            return [record for row in rows for record in UsageReported.FromString(row["payload"]).records]

        (record,) = await eventually(look)
        return record


@asynccontextmanager
async def stage_on(
    inference_url: str, base_settings: dict[str, Any], signer: Signer, database: Database
) -> AsyncIterator[Stage]:
    # Without NATS, so that what is reported stays to be looked at.
    settings = Settings(**{**base_settings, "nats_url": "nats://127.0.0.1:9"}, inference_url=inference_url)
    async with serving("chat", create_app, settings) as server:
        url = f"http://127.0.0.1:{server.http_port}"
        async with anthropic_client(url, signer) as client:
            yield Stage(url, client, database)


@pytest.fixture
async def real(
    base_settings: dict[str, Any], signer: Signer, sidecar: str, database: Database
) -> AsyncIterator[Stage]:
    async with stage_on(sidecar, base_settings, signer, database) as stage:
        yield stage


@pytest.fixture
def upstream() -> ToldUpstream:
    return ToldUpstream(PATH, SPEAKING, WHOLE)


@pytest.fixture
async def stage(
    base_settings: dict[str, Any], signer: Signer, upstream: ToldUpstream, database: Database
) -> AsyncIterator[Stage]:
    async with serve(upstream) as url, stage_on(url, base_settings, signer, database) as stage:
        yield stage


async def test_a_whole_message_of_a_real_model_is_billed_once(real: Stage, signer: Signer) -> None:
    message = await real.client.messages.create(
        model=MODEL, max_tokens=5, system="Be brief.", messages=[USER], extra_body=GREEDY
    )
    (block,) = message.content
    assert isinstance(block, TextBlock)
    assert block.text
    assert (message.role, message.stop_reason, message.usage.output_tokens) == ("assistant", "max_tokens", 5)
    record = await real.used()
    assert record.quantities["output_tokens"] == 5
    assert record.quantities["input_tokens"] == message.usage.input_tokens
    assert (record.account_id, record.operation, record.price_id) == (signer.account, OPERATION, "price-1")
    assert message._request_id == record.request_id


async def test_a_streamed_message_of_a_real_model_is_billed_once(real: Stage) -> None:
    async with real.client.messages.stream(
        model=MODEL, max_tokens=6, messages=[USER], extra_body=GREEDY
    ) as stream:
        pieces = [text async for text in stream.text_stream]
        message = await stream.get_final_message()
    (block,) = message.content
    assert isinstance(block, TextBlock)
    assert block.text == "".join(pieces)
    assert len(pieces) > 1
    assert message.stop_reason == "max_tokens"
    record = await real.used()
    assert not record.estimated
    assert record.quantities["output_tokens"] == message.usage.output_tokens == 6


async def test_a_real_model_refuses_in_anthropics_words(real: Stage) -> None:
    long: Any = {"role": "user", "content": "hello " * 3000}
    for create in (
        real.client.messages.create(model=MODEL, max_tokens=5, messages=[long]),
        real.client.messages.create(model=MODEL, max_tokens=5, messages=[long], stream=True),
    ):
        with pytest.raises(anthropic.BadRequestError) as refused:
            await create
        body: Any = refused.value.body
        assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
        assert body["request_id"] == refused.value.request_id


async def test_tools_both_ways(stage: Stage, upstream: ToldUpstream) -> None:
    upstream.events = CALLING
    async with stage.client.messages.stream(
        model=MODEL, max_tokens=9, messages=[USER], tools=[WEATHER], tool_choice={"type": "any"}
    ) as stream:
        names = [event.type async for event in stream]
        message = await stream.get_final_message()
    (block,) = message.content
    assert isinstance(block, ToolUseBlock)
    assert (block.id, block.name, block.input) == ("call_1", "get_weather", {"city": "東京"})
    assert (message.stop_reason, message.usage.input_tokens) == ("tool_use", 2)
    assert message.usage.cache_read_input_tokens == 10
    assert names[-1] == "message_stop"
    result: Any = {"type": "tool_result", "tool_use_id": block.id, "content": "sunny"}
    again = await stage.client.messages.create(
        model=MODEL,
        max_tokens=9,
        messages=[USER, message.to_param(), {"role": "user", "content": [result]}],
        tools=[WEATHER],
    )
    assert isinstance(again.content[0], ToolUseBlock)
    first, second = upstream.bodies.values()
    assert first["tool_choice"] == "required"
    assert second["messages"][1]["tool_calls"][0]["function"]["name"] == "get_weather"
    assert second["messages"][2] == {"role": "tool", "tool_call_id": "call_1", "content": "sunny"}


async def test_a_stream_is_passed_on_as_it_comes(stage: Stage, upstream: ToldUpstream) -> None:
    upstream.events = [SPEAKING[0] + SPEAKING[1], *SPEAKING[2:]]
    upstream.otherwise = {"events": 1, "ending": "hang"}
    stream = await stage.client.messages.create(model=MODEL, max_tokens=9, messages=[USER], stream=True)
    seen = []
    async with asyncio.timeout(5):  # although the model says no more
        async for one in stream:
            seen.append(one.type)
            if one.type == "content_block_delta":
                break
    await stream.close()
    assert seen == ["message_start", "content_block_start", "content_block_delta"]
    await eventually(lambda: _left(upstream))
    assert (await stage.used()).estimated


async def _left(upstream: ToldUpstream) -> bool:
    return bool(upstream.left)


async def test_a_stream_that_breaks_ends_in_an_error(stage: Stage, upstream: ToldUpstream) -> None:
    upstream.otherwise = {"events": 2, "ending": "die"}
    stream = await stage.client.messages.create(model=MODEL, max_tokens=9, messages=[USER], stream=True)
    with pytest.raises(anthropic.APIStatusError) as failed:
        [one async for one in stream]
    body: Any = failed.value.body
    assert (body["type"], body["error"]["type"]) == ("error", "api_error")
    assert body["request_id"] == failed.value.request_id
    assert (await stage.used()).request_id == body["request_id"]


async def test_errors_have_anthropics_form(stage: Stage, signer: Signer, upstream: ToldUpstream) -> None:
    with pytest.raises(anthropic.BadRequestError, match="max_tokens") as refused:
        await stage.client.messages.create(model=MODEL, max_tokens=0, messages=[USER])
    body: Any = refused.value.body
    assert body["error"]["type"] == "invalid_request_error"
    assert body["request_id"] == refused.value.request_id
    with pytest.raises(anthropic.BadRequestError, match="web_search"):
        await stage.client.messages.create(
            model=MODEL,
            max_tokens=9,
            messages=[USER],
            tools=[{"type": "web_search_20250305", "name": "web_search"}],
        )
    upstream.otherwise = {"events": 0, "ending": "die"}
    with pytest.raises(anthropic.APIStatusError) as failed:
        await stage.client.messages.create(model=MODEL, max_tokens=9, messages=[USER])
    assert failed.value.status_code in (502, 503)
    failure: Any = failed.value.body
    assert failure["type"] == "error"
    free = replace(signer, facts={**signer.facts, "price": ""})
    async with aiohttp.ClientSession() as session:
        url, headers = stage.url + MESSAGES_PATH, free.headers(OPERATION)
        async with session.post(url, data=b"{", headers=headers) as answer:
            assert answer.status == 400
            assert (await answer.json())["type"] == "error"
