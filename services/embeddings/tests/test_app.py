"""The whole service: the official client, the real model, the real database and NATS."""

from typing import Any

import pytest
from nats.aio.client import Client
from openai import BadRequestError

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen.embeddings.v1.embeddings_service_pb2 import EmbedRequest, ModerateRequest
from dozen.embeddings.v1.embeddings_service_pb2_grpc import EmbeddingsServiceStub
from dozen.gateway.v1.gateway_pb2 import Admission
from dozen_chassis.grpc import RemoteError, open_channel, remote_errors
from dozen_chassis.run import serving
from dozen_chassis.signing import caller_token
from dozen_embeddings.app import create_app
from dozen_embeddings.settings import Settings
from dozen_testing.clients import openai_client
from dozen_testing.http import Signer

pytestmark = pytest.mark.integration


async def test_the_official_client_gets_vectors_and_the_usage_is_published(
    base_settings: dict[str, object], signer: Signer, nats_client: Client
) -> None:
    signer = Signer(signer.key, facts={"price": "price-1", "reservation": "lease-1"})
    token = caller_token(bytes.fromhex(str(base_settings["grpc_key"])), "test")
    jetstream = nats_client.jetstream()
    await jetstream.add_stream(name="CREDITS", subjects=["dozen.credits.v1.>"])
    usage = await jetstream.subscribe("dozen.credits.v1.UsageReported")
    async with serving("embeddings", create_app, Settings(**base_settings)) as server:  # type: ignore[arg-type]
        client = openai_client(f"http://127.0.0.1:{server.http_port}", signer)
        answer = await client.embeddings.create(model="all-minilm-l6-v2", input=["a cat", "a kitten"])
        assert [len(item.embedding) for item in answer.data] == [384, 384]
        similarity = sum(a * b for a, b in zip(*(item.embedding for item in answer.data), strict=True))
        assert similarity > 0.6
        with pytest.raises(BadRequestError, match="384 dimensions"):
            await client.embeddings.create(model="all-minilm-l6-v2", input="a cat", dimensions=10)
        with pytest.raises(BadRequestError, match="Token ids"):
            await client.embeddings.create(model="all-minilm-l6-v2", input=[5])
        async with open_channel(f"127.0.0.1:{server.grpc_port}", token) as channel:
            refused = EmbedRequest(admission=Admission(headers=signer.headers("POST /v1/embeddings")))
            with pytest.raises(RemoteError), remote_errors():
                await EmbeddingsServiceStub(channel).Embed(refused)
        records: list[UsageRecord] = []
        while len(records) < 4:
            records += UsageReported.FromString((await usage.next_msg(timeout=5)).data).records
    assert {(record.account_id, record.lease_id) for record in records} == {(signer.account, "lease-1")}
    used = {"input_tokens": answer.usage.prompt_tokens}
    assert [dict(record.quantities) for record in records] == [used, {}, {}, {}]
    assert len({record.request_id for record in records}) == 4


async def test_harmful_texts_are_flagged_over_http_and_grpc(
    base_settings: dict[str, object], signer: Signer
) -> None:
    token = caller_token(bytes.fromhex(str(base_settings["grpc_key"])), "chat")
    async with serving("embeddings", create_app, Settings(**base_settings)) as server:  # type: ignore[arg-type]
        client = openai_client(f"http://127.0.0.1:{server.http_port}", signer)
        texts = ["I will hang myself tomorrow.", "The train leaves at seven."]
        answer = await client.moderations.create(model="omni-moderation-latest", input=texts)
        assert answer.id.startswith("modr-")
        assert [result.flagged for result in answer.results] == [True, False]
        categories = answer.results[0].categories
        assert categories.self_harm_intent or categories.self_harm_instructions
        assert not categories.violence
        assert answer.results[0].category_scores.self_harm_intent > 0.4
        part: Any = {"type": "text", "text": texts[1]}
        assert not (await client.moderations.create(input=[part])).results[0].flagged
        picture: Any = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
        with pytest.raises(BadRequestError, match="no images"):
            await client.moderations.create(input=[picture])
        with pytest.raises(BadRequestError, match="60,000 characters"):
            await client.moderations.create(input="a" * 60_001)
        async with open_channel(f"127.0.0.1:{server.grpc_port}", token) as channel:
            found = await EmbeddingsServiceStub(channel).Moderate(ModerateRequest(inputs=texts))
    assert found.results[0].flagged[0].startswith("self-harm")
    assert not found.results[1].flagged
