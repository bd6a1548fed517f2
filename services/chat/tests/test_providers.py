"""Official clients at the chat service, behind which providers' APIs are imitated."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from openai import AsyncOpenAI, pydantic_function_tool
from openai.types.chat import ChatCompletion
from pydantic import BaseModel

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.postgres import Database
from dozen_chassis.run import serving
from dozen_chat.app import create_app
from dozen_chat.settings import Settings
from dozen_inference.catalogue import DeploymentRepository
from dozen_inference.places import Deployment
from dozen_testing.clients import anthropic_client, openai_client
from dozen_testing.conditions import eventually
from dozen_testing.http import Signer, serve
from dozen_testing.imitations.anthropic.api import AnthropicApi
from dozen_testing.imitations.anthropic.replies import THOUGHT
from dozen_testing.imitations.gemini.api import GeminiApi
from dozen_testing.imitations.script import Refused

pytestmark = pytest.mark.integration

KEY = "the-providers-key"
MODELS = {"anthropic": "claude-sonnet-5-5", "gemini": "gemini-3-pro"}
USER: Any = {"role": "user", "content": "Grüße 東京"}
SAID = "You said: Grüße 東京"
SOME_EVENTS = {"anthropic": 5, "gemini": 2}
"""So many have something of the answer in them, but not all."""
QUANTITIES = {
    "anthropic": {"input_tokens": 10, "cached_input_tokens": 20, "output_tokens": 11},
    "gemini": {"input_tokens": 10, "cached_input_tokens": 20, "output_tokens": 15},
}


class Weather(BaseModel):
    """Tells the weather."""

    city: str


class Time(BaseModel):
    """Tells the time."""

    zone: str


TOOLS: Any = [pydantic_function_tool(Weather), pydantic_function_tool(Time)]


@dataclass
class Stage:
    """A running chat service with a provider behind it."""

    format: str
    api: AnthropicApi | GeminiApi
    url: str
    client: AsyncOpenAI
    signer: Signer
    database: Database

    async def used(self, operation: str = "POST /v1/chat/completions") -> list[UsageRecord]:
        """Give what was reported, once there is anything."""

        async def look() -> list[UsageRecord]:
            rows = await self.database.pool.fetch("select payload from outbox order by id")
            found = [record for row in rows for record in UsageReported.FromString(row["payload"]).records]
            return [record for record in found if record.operation == operation]

        return await eventually(look)

    async def ask(self, **fields: Any) -> ChatCompletion:
        asked = {"model": "ours", "messages": [USER], **fields}
        answer: ChatCompletion = await self.client.chat.completions.create(**asked)
        return answer

    async def listen(self, **fields: Any) -> list[Any]:
        stream: Any = await self.ask(stream=True, stream_options={"include_usage": True}, **fields)
        return [chunk async for chunk in stream]


@pytest.fixture(params=list(MODELS))
async def stage(
    request: pytest.FixtureRequest,
    base_settings: dict[str, Any],
    signer: Signer,
    database: Database,
    tmp_path: Path,
) -> AsyncIterator[Stage]:
    spoken: str = request.param
    values = {"city": "東京", "zone": "UTC"}
    api = AnthropicApi(KEY, values=values) if spoken == "anthropic" else GeminiApi(KEY, values=values)
    (tmp_path / "theirs").write_text(KEY)
    signer = replace(signer, facts={**signer.facts, "model": "ours", "deployments": "theirs-1"})
    settings = {**base_settings, "nats_url": "nats://127.0.0.1:9", "provider_keys_directory": tmp_path}
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serve(api))
        deployment = Deployment(
            id="theirs-1",
            model="ours",
            address="http://chat.invalid",
            format=spoken,
            url=url,
            upstream_model=MODELS[spoken],
            secret="theirs",
        )
        await DeploymentRepository(database).save("ours", [deployment], datetime.now(UTC))
        # Where nothing of the catalogue is known yet, the server beside the service is asked; there is none.
        service = Settings(**settings, inference_url="http://127.0.0.1:9", max_choices=8)
        server = await stack.enter_async_context(serving("chat", create_app, service))
        own_url = f"http://127.0.0.1:{server.http_port}"
        client = await stack.enter_async_context(openai_client(own_url, signer))
        unpriced = replace(signer, facts={**signer.facts, "price": ""})
        free = await stack.enter_async_context(openai_client(own_url, unpriced))
        stage = Stage(spoken, api, own_url, client, signer, database)
        await eventually(lambda: _answers(free))
        await database.pool.execute("truncate outbox")
        api.script.bodies.clear()
        yield stage


async def _answers(client: AsyncOpenAI) -> bool:
    try:
        await client.chat.completions.create(model="ours", messages=[USER])
    except openai.InternalServerError:
        return False
    return True


async def test_a_whole_answer_is_the_providers_and_is_billed(stage: Stage) -> None:
    answer = await stage.ask(max_tokens=50, user="u1", seed=1)
    (choice,) = answer.choices
    assert (choice.message.content, choice.message.role, choice.finish_reason) == (SAID, "assistant", "stop")
    assert (answer.object, answer.model) == ("chat.completion", MODELS[stage.format])
    assert answer.id.startswith("chatcmpl-")
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    (record,) = await stage.used()
    assert dict(record.quantities) == QUANTITIES[stage.format]
    assert (record.model, record.deployment_id, record.price_id) == ("ours", "theirs-1", "price-1")
    assert not record.estimated
    assert KEY in stage.api.script.headers[-1].values()


@pytest.mark.parametrize("split", [None, 1, 7])
async def test_a_stream_is_the_same_however_it_is_split(stage: Stage, split: int | None) -> None:
    stage.api.script.split = split
    chunks = await stage.listen()
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == SAID
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    *others, last = chunks
    assert last.choices == []
    assert last.usage.prompt_tokens_details.cached_tokens == 20
    assert all(chunk.usage is None for chunk in others)
    (record,) = await stage.used()
    assert dict(record.quantities) == QUANTITIES[stage.format]


async def test_usage_is_kept_from_who_does_not_ask(stage: Stage) -> None:
    stream: Any = await stage.ask(stream=True)
    assert all(chunk.choices for chunk in [chunk async for chunk in stream])
    assert dict((await stage.used())[0].quantities) == QUANTITIES[stage.format]


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_both_ways(stage: Stage, stream: bool) -> None:
    if stream:
        async with stage.client.chat.completions.stream(model="ours", messages=[USER], tools=TOOLS) as events:
            answer = await events.get_final_completion()
    else:
        answer = await stage.client.chat.completions.parse(model="ours", messages=[USER], tools=TOOLS)
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls"
    weather, clock = choice.message.tool_calls or []
    assert weather.function.parsed_arguments == Weather(city="東京")
    assert clock.function.parsed_arguments == Time(zone="UTC")
    assert weather.id != clock.id
    results: Any = [
        {"role": "tool", "tool_call_id": one.id, "content": one.function.name} for one in (weather, clock)
    ]
    # As clients send it back: what they do not know of a message comes along.
    said: Any = json.loads(choice.message.model_dump_json(exclude_none=True))
    for call in said["tool_calls"]:
        call.pop("index", None)
        call["function"].pop("parsed_arguments")
    said.pop("parsed", None)
    again = await stage.ask(messages=[USER, said, *results], tools=TOOLS)
    assert again.choices[0].finish_reason == "stop"
    text = again.choices[0].message.content or ""
    assert "Weather" in text
    assert "Time" in text


async def test_tool_choices(stage: Stage) -> None:
    named: Any = {"type": "function", "function": {"name": "Time"}}
    answer = await stage.ask(tools=TOOLS, tool_choice=named)
    assert [call.function.name for call in answer.choices[0].message.tool_calls or []] == ["Time"]  # type: ignore[union-attr]
    assert (await stage.ask(tools=TOOLS, tool_choice="none")).choices[0].message.tool_calls is None


async def test_answers_after_a_schema(stage: Stage) -> None:
    answer = await stage.client.chat.completions.parse(model="ours", messages=[USER], response_format=Weather)
    assert answer.choices[0].message.parsed == Weather(city="東京")
    async with stage.client.chat.completions.stream(
        model="ours", messages=[USER], response_format=Weather
    ) as events:
        assert (await events.get_final_completion()).choices[0].message.parsed == Weather(city="東京")


async def test_reasoning(stage: Stage) -> None:
    answer = await stage.ask(reasoning_effort="low")
    assert getattr(answer.choices[0].message, "reasoning_content", None) == THOUGHT
    chunks = await stage.listen(reasoning_effort="low")
    pieces = [getattr(chunk.choices[0].delta, "reasoning_content", None) for chunk in chunks if chunk.choices]
    assert "".join(piece or "" for piece in pieces) == THOUGHT


async def test_images_and_stops(stage: Stage) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
    message: Any = {"role": "user", "content": [{"type": "text", "text": "Look"}, image]}
    answer = await stage.ask(messages=[{"role": "system", "content": "Be brief."}, message])
    assert (answer.choices[0].message.content or "").startswith("You said: Look <")
    assert (await stage.ask(stop=["東"])).choices[0].message.content == "You said: Grüße "
    assert (await stage.ask(max_tokens=2)).choices[0].finish_reason == "length"


async def test_what_cannot_be_honoured_is_refused_by_name(stage: Stage) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await stage.ask(logit_bias={"5": 1})
    assert (refused.value.param, refused.value.code) == ("logit_bias", "unsupported_parameter")
    with pytest.raises(openai.BadRequestError) as refused:
        await stage.ask(n=2, stream=True)
    assert refused.value.param == "n"
    with pytest.raises(openai.BadRequestError) as refused:
        await stage.ask(temperature=5)
    assert refused.value.param == "temperature"


@pytest.mark.parametrize("stream", [False, True])
async def test_the_providers_errors(stage: Stage, stream: bool) -> None:
    kinds = {
        "anthropic": ("invalid_request_error", "rate_limit_error", "overloaded_error"),
        "gemini": ("INVALID_ARGUMENT", "RESOURCE_EXHAUSTED", "UNAVAILABLE"),
    }[stage.format]
    long = "prompt is too long: 9 tokens; it exceeds the maximum number of tokens allowed"
    stage.api.script.refusal = Refused(400, kinds[0], long)
    with pytest.raises(openai.BadRequestError) as refused:
        await stage.ask(stream=stream)
    assert refused.value.code == "context_length_exceeded"
    stage.api.script.refusal = Refused(503, kinds[2], "Overloaded")
    with pytest.raises(openai.InternalServerError) as failed:
        await stage.ask(stream=stream)
    assert failed.value.status_code == 503
    stage.api.script.refusal = Refused(429, kinds[1], "Your quota", headers={"retry-after": "7"})
    with pytest.raises(openai.RateLimitError) as limited:
        await stage.ask(stream=stream)
    assert limited.value.code == "rate_limit_exceeded"
    assert int(limited.value.response.headers["retry-after"]) in range(1, 8)
    assert "quota" not in limited.value.message


async def test_our_key_is_never_the_callers_fault(stage: Stage) -> None:
    stage.api.key = "another"
    with pytest.raises(openai.InternalServerError) as failed:
        await stage.ask()
    assert failed.value.status_code == 502
    assert KEY not in str(failed.value)


async def test_a_stream_that_fails_says_so_and_is_billed_so_far(stage: Stage) -> None:
    stage.api.script.fails_after = SOME_EVENTS[stage.format]
    with pytest.raises(openai.APIError):
        await stage.listen()
    stage.api.script.fails_after, stage.api.script.cuts_after = None, SOME_EVENTS[stage.format]
    with pytest.raises(openai.APIError):
        await stage.listen(messages=[USER, USER])
    assert len(await stage.used()) == 2


async def test_a_client_that_leaves_stops_the_provider(stage: Stage) -> None:
    stage.api.script.permits = asyncio.Semaphore(SOME_EVENTS[stage.format])
    stream: Any = await stage.ask(stream=True)
    await anext(aiter(stream))
    await stream.close()
    async with asyncio.timeout(5):
        await stage.api.script.left.wait()
    assert (await stage.used())[0].estimated


async def test_anthropics_client_at_any_provider(stage: Stage) -> None:
    user: Any = {"role": "user", "content": "Grüße 東京"}
    tool: Any = {"name": "Weather", "input_schema": Weather.model_json_schema()}
    async with anthropic_client(stage.url, stage.signer) as client:
        async with client.messages.stream(
            model="ours",
            max_tokens=4096,
            messages=[user],
            tools=[tool],
            thinking={"type": "adaptive"},
        ) as stream:
            message = await stream.get_final_message()
        thought, call = message.content
        assert isinstance(thought, anthropic.types.ThinkingBlock)
        assert thought.thinking == THOUGHT
        assert isinstance(call, anthropic.types.ToolUseBlock)
        assert call.input == {"city": "東京"}
        assert message.usage.cache_read_input_tokens == 20
        result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
        again = await client.messages.create(
            model="ours",
            max_tokens=4096,
            messages=[user, message.to_param(), {"role": "user", "content": [result]}],
            tools=[tool],
        )
    (text,) = again.content
    assert isinstance(text, anthropic.types.TextBlock)
    assert text.text.endswith("sunny")
    first, _ = await stage.used("POST /v1/messages")
    assert dict(first.quantities) == QUANTITIES[stage.format]
