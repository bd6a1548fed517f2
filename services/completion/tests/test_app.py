"""The whole service: the official client, a real inference server, the real database and NATS."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import grpc.aio
import httpx
import pytest
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from openai import AsyncOpenAI, BadRequestError

from dozen.completion.v1.completion_service_pb2 import CompleteRequest
from dozen.completion.v1.completion_service_pb2_grpc import CompletionServiceStub
from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.grpc import open_channel
from dozen_chassis.run import serving
from dozen_chassis.signing import caller_token
from dozen_completion.app import create_app
from dozen_completion.service import OPERATION
from dozen_completion.settings import Settings
from dozen_testing.clients import openai_client
from dozen_testing.http import Signer

pytestmark = pytest.mark.integration

MODEL = "smollm2-135m-instruct"
ENDLESS = {"ignore_eos": True}
"""Makes the model go on to the last token that it may write."""


@dataclass
class Stage:
    """A running completion service."""

    client: AsyncOpenAI
    channel: grpc.aio.Channel
    usage: Subscription

    async def used(self) -> UsageRecord:
        """Wait for the next usage report."""
        (record,) = UsageReported.FromString((await self.usage.next_msg(timeout=10)).data).records
        return record


@pytest.fixture
async def stage(
    base_settings: dict[str, Any], signer: Signer, nats_client: Client, sidecar: str
) -> AsyncIterator[Stage]:
    jetstream = nats_client.jetstream()
    await jetstream.add_stream(name="CREDITS", subjects=["dozen.credits.v1.>"])
    usage = await jetstream.subscribe("dozen.credits.v1.UsageReported")
    settings = Settings(**base_settings, inference_url=sidecar)
    async with serving("completion", create_app, settings) as server:
        token = caller_token(bytes.fromhex(base_settings["grpc_key"]), "test")
        async with (
            openai_client(f"http://127.0.0.1:{server.http_port}", signer) as client,
            open_channel(f"127.0.0.1:{server.grpc_port}", token) as channel,
        ):
            yield Stage(client, channel, usage)


def prompt_tokens(record: UsageRecord) -> int:
    return record.quantities["input_tokens"] + record.quantities["cached_input_tokens"]


@pytest.mark.parametrize("prompt", ["Once upon a time", ["Once upon a time"], [7, 8, 9], [[7, 8, 9]]])
async def test_a_whole_answer_costs_what_it_says(stage: Stage, prompt: Any) -> None:
    answer = await stage.client.completions.create(
        model=MODEL, prompt=prompt, max_tokens=4, extra_body=ENDLESS
    )
    assert answer.choices[0].text
    assert answer.usage is not None
    record = await stage.used()
    assert record.quantities["output_tokens"] == answer.usage.completion_tokens == 4
    assert prompt_tokens(record) == answer.usage.prompt_tokens
    assert (record.operation, record.deployment_id) == ("POST /v1/completions", "smollm2-completion")
    assert not record.estimated


async def test_a_stream_costs_what_was_generated(stage: Stage) -> None:
    stream = await stage.client.completions.create(
        model=MODEL, prompt="Once", max_tokens=6, stream=True, extra_body=ENDLESS
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "length"
    record = await stage.used()
    assert record.quantities["output_tokens"] == 6
    assert not record.estimated


async def test_a_client_that_leaves_pays_for_what_was_said(stage: Stage) -> None:
    stream = await stage.client.completions.create(
        model=MODEL, prompt="Once", max_tokens=1500, stream=True, extra_body=ENDLESS
    )
    await anext(aiter(stream))
    await stream.close()
    record = await stage.used()
    assert record.estimated
    assert 1 <= record.quantities["output_tokens"] < 500


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "limits", [{}, {"max_tokens": 50}, {"max_completion_tokens": 50}, {"n_predict": -1, "max_tokens": 2}]
)
async def test_no_answer_has_more_tokens_than_are_held_for_it(
    stage: Stage, signer: Signer, limits: dict[str, Any], stream: bool
) -> None:
    held = replace(signer, facts={**signer.facts, "max-tokens": "3"})
    asked = {"model": MODEL, "prompt": "Once", "stream": stream, **ENDLESS, **limits}
    async with httpx.AsyncClient() as client:
        url = str(stage.client.base_url.join("completions"))
        answer = await client.post(url, json=asked, headers=held.headers(OPERATION))
    assert answer.status_code == 200
    record = await stage.used()
    assert 2 <= record.quantities["output_tokens"] <= 3
    assert not record.estimated


async def test_wrong_requests_are_bad_requests(stage: Stage) -> None:
    create: Any = stage.client.completions.create
    prompts: list[Any] = [None, [], 5]
    for prompt in prompts:
        with pytest.raises(BadRequestError) as refused:
            await create(model=MODEL, prompt=prompt)
        assert refused.value.param == "prompt"
    with pytest.raises(BadRequestError) as refused:
        await create(model=MODEL, prompt="hello " * 3000)
    assert refused.value.code == "context_length_exceeded"


async def test_grpc_gives_the_bytes_of_http(stage: Stage, signer: Signer) -> None:
    stub = CompletionServiceStub(stage.channel)
    request = CompleteRequest(
        body=json.dumps({"model": MODEL, "prompt": "Once", "max_tokens": 3, **ENDLESS}).encode()
    )
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await anext(aiter(stub.Complete(request)))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    request.admission.headers.update(signer.headers(OPERATION))
    (response,) = [response async for response in stub.Complete(request)]
    assert json.loads(response.chunk)["object"] == "text_completion"
    assert (await stage.used()).quantities["output_tokens"] == 3
    request.body = b"{"
    with pytest.raises(grpc.aio.AioRpcError):
        await anext(aiter(stub.Complete(request)))
    assert dict((await stage.used()).quantities) == {}  # and yet it is told that the request has ended
