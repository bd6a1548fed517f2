"""NATS for tests: the services' users, one that may do everything, and no streams left behind."""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import nats
from nats.aio.client import Client

from dozen_local.nats import NatsServer, temporary_nats
from dozen_local.nats_users import NatsUser, service_users

OBSERVER = "observer"
"""The user that may say and hear everything."""


@contextmanager
def observed_nats() -> Iterator[NatsServer]:
    """Run a NATS server with the services' users and the observer for the block."""
    with temporary_nats([*service_users(), NatsUser(OBSERVER, secrets.token_urlsafe(16))]) as server:
        yield server


@asynccontextmanager
async def observer(server: NatsServer) -> AsyncIterator[Client]:
    """Connect as the observer, and delete all streams afterwards."""
    client = await nats.connect(server.url(OBSERVER), inbox_prefix=f"_INBOX_{OBSERVER}".encode())
    jetstream = client.jetstream()
    try:
        yield client
    finally:
        for stream in await jetstream.streams_info():
            await jetstream.delete_stream(str(stream.config.name))
        await client.close()
