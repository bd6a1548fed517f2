"""A service in this process on a real vLLM, and what it reports."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from nats.aio.client import Client
from nats.aio.subscription import Subscription
from openai import AsyncOpenAI

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.run import CreateApp, serving
from dozen_inference.server_metrics import ServerLoad
from dozen_testing.clients import openai_client
from dozen_testing.conditions import eventually
from dozen_testing.http import Signer
from vllm.server import Vllm


@dataclass(frozen=True)
class Stage:
    """A running service."""

    url: str
    client: AsyncOpenAI
    vllm: Vllm
    usage: Subscription

    async def used(self) -> UsageRecord:
        """Wait for the next usage report."""
        (record,) = UsageReported.FromString((await self.usage.next_msg(timeout=10)).data).records
        return record

    async def sees(self, wanted: Callable[[ServerLoad], bool]) -> ServerLoad:
        """Wait until vLLM's load is as wanted."""

        async def look() -> ServerLoad | None:
            load = await asyncio.to_thread(self.vllm.load)
            return load if wanted(load) else None

        found = await eventually(look, 60)
        assert found is not None
        return found


@asynccontextmanager
async def open_stage(
    service: str, create_app: CreateApp[Any], settings: Any, signer: Signer, nats: Client, vllm: Vllm
) -> AsyncIterator[Stage]:
    """Run a service for the block."""
    jetstream = nats.jetstream()
    await jetstream.add_stream(name="CREDITS", subjects=["dozen.credits.v1.>"])
    usage = await jetstream.subscribe("dozen.credits.v1.UsageReported")
    async with serving(service, create_app, settings) as server:
        url = f"http://127.0.0.1:{server.http_port}"
        async with openai_client(url, signer) as client:
            yield Stage(url, client, vllm, usage)
