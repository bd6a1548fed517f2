"""Chat completions of a real vLLM, through the real chat service, with OpenAI's own client."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from nats.aio.client import Client
from openai import BadRequestError, NotFoundError

from dozen_chat.app import create_app
from dozen_chat.settings import Settings
from dozen_testing.clients import openai_client
from dozen_testing.http import Signer
from vllm.server import BLOCK_TOKENS, MODEL, Vllm
from vllm.stage import Stage, open_stage
from vllm.tiny_llama import CONTEXT

pytestmark = pytest.mark.integration

PACKAGE = "dozen_chat"
MESSAGES: Any = [{"role": "user", "content": "hi"}]
ENDLESS = {"ignore_eos": True}
"""Makes the model go on to the last token that it may write."""
STOP_SECONDS = 0.25
"""Within so long a client that has left stops vLLM, apart from the step that it is at and our looking."""
STEP_SECONDS = 0.75
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
FORCED: Any = {"type": "function", "function": {"name": "weather"}}
SCHEMA: Any = {
    "type": "object",
    "properties": {
        "a": {"type": "string", "maxLength": 4},
        "n": {"type": "integer", "minimum": 0, "maximum": 9},
    },
    "required": ["a", "n"],
    "additionalProperties": False,
}


@pytest.fixture
def signer() -> Signer:
    """Admits requests for the tiny model."""
    return Signer(b"k" * 32, facts={"model": MODEL, "deployments": "tiny-chat", "price": "price-1"})


@pytest.fixture
async def stage(
    base_settings: dict[str, Any], signer: Signer, nats_client: Client, vllm: Vllm
) -> AsyncIterator[Stage]:
    settings = Settings(**base_settings, inference_url=vllm.url, max_choices=8)
    async with open_stage("chat", create_app, settings, signer, nats_client, vllm) as stage:
        yield stage


async def test_a_whole_answer_costs_what_it_says(stage: Stage) -> None:
    answer = await stage.client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=9, extra_body=ENDLESS
    )
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 9
    record = await stage.used()
    assert dict(record.quantities) == {"input_tokens": answer.usage.prompt_tokens, "output_tokens": 9}
    assert not record.estimated


@pytest.mark.parametrize("asked", [True, False])
async def test_a_stream_costs_what_it_says_asked_or_not(stage: Stage, asked: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if asked else {}
    stream = await stage.client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=9, stream=True, extra_body=ENDLESS, **options
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    record = await stage.used()
    assert record.quantities["output_tokens"] == 9
    assert not record.estimated
    if asked:
        assert [(usage.prompt_tokens, usage.completion_tokens) for usage in usages] == [
            (record.quantities["input_tokens"], 9)
        ]
        assert chunks[-1].choices == []
    else:
        assert not usages
        assert chunks[-1].choices[0].finish_reason == "length"


async def test_a_forced_tool_is_called(stage: Stage) -> None:
    answer = await stage.client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=500, tools=[WEATHER], tool_choice=FORCED
    )
    (call,) = answer.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "weather"
    assert json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")


async def test_a_forced_tool_is_called_piece_by_piece(stage: Stage) -> None:
    stream = await stage.client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=500, tools=[WEATHER], tool_choice=FORCED, stream=True
    )
    names, arguments = [], ""
    async for chunk in stream:
        for call in (chunk.choices[0].delta.tool_calls or []) if chunk.choices else []:
            assert call.function is not None
            names += [call.function.name] if call.function.name else []
            arguments += call.function.arguments or ""
    assert names == ["weather"]
    assert json.loads(arguments)["city"] in ("Oslo", "Rome")


async def test_what_a_tool_gave_is_taken(stage: Stage) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages: Any = [
        *MESSAGES,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]
    answer = await stage.client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=3, tools=[WEATHER], parallel_tool_calls=True
    )
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 30


async def test_even_noise_keeps_to_a_schema(stage: Stage) -> None:
    answer = await stage.client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        max_tokens=500,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "x", "schema": SCHEMA, "strict": True},
        },
    )
    found = json.loads(answer.choices[0].message.content or "")
    assert found.keys() == {"a", "n"}
    assert 0 <= found["n"] <= 9


async def test_log_probabilities_come_through(stage: Stage) -> None:
    answer = await stage.client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=2, logprobs=True, top_logprobs=3, extra_body=ENDLESS
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    tokens = logprobs.content or []
    assert len(tokens) == 2
    assert all(token.logprob < 0 and len(token.top_logprobs) >= 3 for token in tokens)


async def test_all_choices_are_charged(stage: Stage) -> None:
    answer = await stage.client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=5, n=2, seed=1, extra_body=ENDLESS
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert (await stage.used()).quantities["output_tokens"] == 10


async def test_the_same_seed_says_the_same(stage: Stage) -> None:
    texts = set()
    for _ in range(2):
        answer = await stage.client.chat.completions.create(
            model=MODEL, messages=MESSAGES, max_tokens=8, seed=7, temperature=1, extra_body=ENDLESS
        )
        texts.add(answer.choices[0].message.content)
    assert len(texts) == 1


async def test_fields_that_nobody_knows_reach_vllm_and_harm_nothing(stage: Stage) -> None:
    answer = await stage.client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=6, extra_body={"min_tokens": 6, "of_nobody": {"a": [1]}}
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 6, "vLLM's own `min_tokens` was heeded"


async def test_a_prompt_beyond_the_context_is_the_clients_mistake(stage: Stage) -> None:
    with pytest.raises(BadRequestError) as raised:
        await stage.client.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "a b " * CONTEXT}], max_tokens=2
        )
    assert raised.value.code == "context_length_exceeded"
    assert dict((await stage.used()).quantities) == {}


async def test_a_model_that_vllm_does_not_have_is_not_found(stage: Stage, signer: Signer) -> None:
    """Only where the catalogue and vLLM disagree: the gateway knows the catalogue."""
    other = replace(signer, facts={**signer.facts, "model": "other"})
    with pytest.raises(NotFoundError):
        await openai_client(stage.url, other).chat.completions.create(
            model="other", messages=MESSAGES, max_tokens=2
        )


async def test_a_value_that_vllm_refuses_is_the_clients_mistake(stage: Stage) -> None:
    with pytest.raises(BadRequestError) as raised:
        await stage.client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=9)
    assert "temperature" in raised.value.message


async def test_cached_prompt_tokens_are_reported_and_priced(stage: Stage) -> None:
    messages: Any = [{"role": "user", "content": f"{time.time_ns()} " + "x" * 1790}]
    cached = []
    for _ in range(2):
        answer = await stage.client.chat.completions.create(model=MODEL, messages=messages, max_tokens=2)
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        cached.append(answer.usage.prompt_tokens_details.cached_tokens)
        quantities = (await stage.used()).quantities
        assert quantities["cached_input_tokens"] == cached[-1]
        assert quantities["input_tokens"] == answer.usage.prompt_tokens - (cached[-1] or 0)
    assert cached == [0, 14 * BLOCK_TOKENS]


@pytest.mark.parametrize("stream", [True, False])
async def test_vllm_stops_when_the_client_leaves(stage: Stage, signer: Signer, stream: bool) -> None:
    body = {"model": MODEL, "messages": MESSAGES, "max_tokens": 3900, "stream": stream, **ENDLESS}
    headers = signer.headers("POST /v1/chat/completions")
    await stage.sees(lambda load: load.running == 0)
    before, seen = stage.vllm.count("vllm:generation_tokens_total"), 0
    async with httpx.AsyncClient(timeout=30) as http:
        request = http.stream("POST", f"{stage.url}/v1/chat/completions", json=body, headers=headers)
        if stream:
            async with request as answer:
                async for line in answer.aiter_lines():
                    seen += line.startswith("data: ")
                    if seen == 20:
                        break
        else:
            waiting = asyncio.ensure_future(request.__aenter__())
            await stage.sees(lambda load: load.running == 1)
            waiting.cancel()
    left = time.monotonic()
    await stage.sees(lambda load: load.running == 0)
    stopped = time.monotonic() - left
    generated = stage.vllm.count("vllm:generation_tokens_total") - before
    record = await stage.used()
    assert generated < 3900, "it went on to the end"
    assert stopped < STOP_SECONDS + STEP_SECONDS
    assert record.estimated
    if stream:
        assert 15 <= record.quantities["output_tokens"] <= generated


async def test_its_load_is_read_from_its_metrics(stage: Stage) -> None:
    idle = stage.vllm.load()
    assert (idle.running, idle.waiting, idle.kv_cache_usage) == (0, 0, 0.0)
    body: Any = {"model": MODEL, "messages": MESSAGES, "max_tokens": 200, "extra_body": ENDLESS}
    asked = [asyncio.ensure_future(stage.client.chat.completions.create(**body)) for _ in range(8)]
    busy = await stage.sees(lambda load: load.waiting == 4)
    assert busy.running == 4, "as many as it takes at once"
    assert busy.kv_cache_usage is not None
    assert 0 < busy.kv_cache_usage <= 1
    await asyncio.gather(*asked)
