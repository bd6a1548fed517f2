"""What the tests of the chassis share: the events of credits, taken by credits itself."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from nats.aio.client import Client

from dozen_chassis.bus import Bus
from dozen_local.nats import NatsServer
from dozen_testing.tasks import running


@pytest.fixture
async def bus(nats_server: NatsServer, nats_client: Client) -> AsyncIterator[Bus]:
    """The bus of credits, connected, with its stream."""
    bus = Bus(nats_server.url("credits"))
    async with running(bus.run("credits")):
        await asyncio.wait_for(bus.connected(), 20)
        yield bus
