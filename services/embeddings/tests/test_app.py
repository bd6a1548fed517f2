"""The whole service: the official client, the real model, the real database and NATS."""

import pytest
from nats.aio.client import Client
from openai import BadRequestError

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen_chassis.run import serving
from dozen_embeddings.app import create_app
from dozen_embeddings.settings import Settings
from dozen_testing.clients import openai_client
from dozen_testing.http import Signer

pytestmark = pytest.mark.integration


async def test_the_official_client_gets_vectors_and_the_usage_is_published(
    base_settings: dict[str, object], signer: Signer, nats_client: Client
) -> None:
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
        message = await usage.next_msg(timeout=5)
    (record,) = UsageReported.FromString(message.data).records
    assert record.account_id == signer.account
    assert dict(record.quantities) == {"input_tokens": answer.usage.prompt_tokens}
