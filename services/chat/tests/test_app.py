"""The whole service: the official client, a real inference server, the real database and NATS."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import grpc.aio
import pytest
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from openai import AsyncOpenAI, BadRequestError

from dozen.chat.v1.chat_service_pb2 import ChatRequest
from dozen.chat.v1.chat_service_pb2_grpc import ChatServiceStub
from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.grpc import open_channel
from dozen_chassis.postgres import Database
from dozen_chassis.run import serving
from dozen_chassis.signing import caller_token
from dozen_chat.app import create_app
from dozen_chat.service.completions import OPERATION
from dozen_chat.settings import Settings
from dozen_testing.clients import openai_client
from dozen_testing.http import Signer

pytestmark = pytest.mark.integration

MODEL = "smollm2-135m-instruct"
ENDLESS = {"ignore_eos": True}
"""Makes the model go on to the last token that it may write."""
MESSAGES: Any = [{"role": "user", "content": "Count from one to twenty in words."}]


@dataclass
class Stage:
    """A running chat service."""

    url: str
    client: AsyncOpenAI
    channel: grpc.aio.Channel
    database: Database
    sidecar: str
    usage: Subscription

    async def logged(self) -> Any:
        """Wait for the only row of the request log, which is written a little later."""
        async with asyncio.timeout(5):
            while (row := await self.database.pool.fetchrow("select * from requests")) is None:
                pass
        return row

    async def used(self) -> UsageRecord:
        """Wait for the next usage report."""
        (record,) = UsageReported.FromString((await self.usage.next_msg(timeout=10)).data).records
        return record


@pytest.fixture
async def stage(
    base_settings: dict[str, Any], signer: Signer, nats_client: Client, sidecar: str, database: Database
) -> AsyncIterator[Stage]:
    jetstream = nats_client.jetstream()
    await jetstream.add_stream(name="CREDITS", subjects=["dozen.credits.v1.>"])
    usage = await jetstream.subscribe("dozen.credits.v1.UsageReported")
    settings = Settings(**base_settings, inference_url=sidecar)
    async with serving("chat", create_app, settings) as server:
        url = f"http://127.0.0.1:{server.http_port}"
        token = caller_token(bytes.fromhex(base_settings["grpc_key"]), "test")
        async with (
            openai_client(url, signer) as client,
            open_channel(f"127.0.0.1:{server.grpc_port}", token) as channel,
        ):
            yield Stage(url, client, channel, database, sidecar, usage)


def quantities(usage: Any) -> dict[str, int]:
    cached = usage.prompt_tokens_details.cached_tokens
    found = {
        "input_tokens": usage.prompt_tokens - cached,
        "cached_input_tokens": cached,
        "output_tokens": usage.completion_tokens,
    }
    return {unit: amount for unit, amount in found.items() if amount or unit != "cached_input_tokens"}


async def test_a_whole_answer_costs_what_it_says(stage: Stage, signer: Signer) -> None:
    answer = await stage.client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=5, extra_body=ENDLESS
    )
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    record = await stage.used()
    assert dict(record.quantities) == quantities(answer.usage)
    assert not record.estimated
    assert (record.account_id, record.model, record.price_id) == (signer.account, MODEL, "price-1")
    row = await stage.logged()
    assert (row["request_id"], row["status"], row["ending"]) == (record.request_id, 200, "length")
    assert (row["input_tokens"], row["output_tokens"]) == (answer.usage.prompt_tokens, 5)
    assert answer._request_id == record.request_id


@pytest.mark.parametrize("asked", [True, False])
async def test_a_stream_costs_what_it_says_asked_or_not(stage: Stage, asked: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if asked else {}
    stream = await stage.client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=8, stream=True, extra_body=ENDLESS, **options
    )
    chunks = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    record = await stage.used()
    assert record.quantities["output_tokens"] == 8
    assert not record.estimated
    if asked:
        assert [quantities(usage) for usage in usages] == [dict(record.quantities)]
        assert chunks[-1].choices == []
    else:
        assert not usages
        assert chunks[-1].choices[0].finish_reason == "length"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"max_tokens": 50},
        {"max_completion_tokens": 50},
        {"max_tokens": None},
        {"n_predict": 50},
        {"n_predict": -1},
        {"max_tokens": 2, "max_completion_tokens": 50, "n_predict": 60},
    ],
)
async def test_no_answer_has_more_tokens_than_are_held_for_it(
    stage: Stage, signer: Signer, limits: dict[str, Any], stream: bool
) -> None:
    held = replace(signer, facts={**signer.facts, "max-tokens": "3"})
    asked = {"model": MODEL, "messages": MESSAGES, "stream": stream, **ENDLESS, **limits}
    async with aiohttp.ClientSession() as session:
        url = f"{stage.url}/v1/chat/completions"
        async with session.post(url, json=asked, headers=held.headers(OPERATION)) as answer:
            assert answer.status == 200
            await answer.read()
    record = await stage.used()
    assert 2 <= record.quantities["output_tokens"] <= 3
    assert not record.estimated


async def test_wrong_requests_are_bad_requests(stage: Stage) -> None:
    create: Any = stage.client.chat.completions.create
    with pytest.raises(BadRequestError) as refused:
        await create(model=MODEL, messages=[])
    assert refused.value.param == "messages"
    with pytest.raises(BadRequestError, match="role"):
        await create(model=MODEL, messages=[{"content": "hi"}])
    with pytest.raises(BadRequestError) as refused:
        await create(model=MODEL, messages=MESSAGES, max_tokens="five")
    assert (refused.value.param, refused.value.type) == ("max_tokens", "invalid_request_error")
    with pytest.raises(BadRequestError) as refused:
        await create(model=MODEL, messages=[{"role": "user", "content": "hello " * 3000}], stream=True)
    assert refused.value.code == "context_length_exceeded"
    with pytest.raises(BadRequestError) as refused:
        await create(model=MODEL, messages=MESSAGES, n=2)
    assert refused.value.param == "n"


async def test_a_client_that_leaves_stops_the_model_and_pays_for_what_it_said(stage: Stage) -> None:
    stream = await stage.client.chat.completions.create(
        model=MODEL,
        messages=MESSAGES,
        max_tokens=1500,
        temperature=1.5,
        stream=True,
        extra_body=ENDLESS,
    )
    read = 0
    async for chunk in stream:
        read += bool(chunk.choices[0].delta.content)
        if read == 5:
            break
    await stream.close()
    record = await stage.used()
    assert record.estimated
    assert 5 <= record.quantities["output_tokens"] < 500
    async with asyncio.timeout(5), aiohttp.ClientSession() as session:
        busy = True
        while busy:
            async with session.get(f"{stage.sidecar}/metrics") as answer:
                busy = "llamacpp:requests_processing 0" not in await answer.text()
    assert (await stage.logged())["ending"] == "client_left"


async def test_grpc_gives_the_bytes_of_http(stage: Stage, signer: Signer) -> None:
    stub = ChatServiceStub(stage.channel)
    fields = {"model": MODEL, "messages": MESSAGES, "max_tokens": 3, "stream": True, **ENDLESS}
    request = ChatRequest(body=json.dumps(fields).encode())
    request.admission.headers.update(signer.headers(OPERATION))
    said = b"".join([response.chunk async for response in stub.Chat(request)])
    assert said.startswith(b"data: {")
    assert said.endswith(b"data: [DONE]\n\n")
    assert (await stage.used()).quantities["output_tokens"] == 3
    request.body = b"{"
    with pytest.raises(grpc.aio.AioRpcError):
        await anext(aiter(stub.Chat(request)))
    record = await stage.used()
    assert dict(record.quantities) == {}  # and yet it is told that the request has ended


async def test_grpc_refuses_what_is_not_admitted_and_stops_when_the_caller_does(
    stage: Stage, signer: Signer
) -> None:
    stub = ChatServiceStub(stage.channel)
    fields = {"model": MODEL, "messages": MESSAGES, "max_tokens": 1500, "stream": True, **ENDLESS}
    request = ChatRequest(body=json.dumps(fields).encode())
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await anext(aiter(stub.Chat(request)))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    request.admission.headers.update(signer.headers(OPERATION))
    call = stub.Chat(request)
    await anext(aiter(call))
    call.cancel()
    record = await stage.used()
    assert record.estimated
    assert record.quantities["output_tokens"] < 500


async def test_readiness_tells_of_the_inference_server(stage: Stage) -> None:
    async with aiohttp.ClientSession() as session, session.get(f"{stage.url}/readyz") as answer:
        assert (await answer.json())["checks"]["inference"] == "ok"
    async with aiohttp.ClientSession() as session, session.get(f"{stage.url}/metrics") as answer:
        metrics = await answer.text()
    assert "dozen_inference_first_byte_seconds" in metrics
