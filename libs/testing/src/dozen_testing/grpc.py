"""gRPC for tests: servicers on a real port, behind the chassis' own edge."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc.aio

from dozen_chassis.grpc import GrpcService, open_channel, start_grpc
from dozen_chassis.signing import caller_token


@asynccontextmanager
async def channel_to(*services: GrpcService, caller: str = "test") -> AsyncIterator[grpc.aio.Channel]:
    """Serve gRPC services on a free port for the block; give a channel of a caller they trust."""
    key = secrets.token_bytes(32)
    server, port = await start_grpc("127.0.0.1", 0, key, services)
    try:
        async with open_channel(f"127.0.0.1:{port}", caller_token(key, caller)) as channel:
            yield channel
    finally:
        await server.stop(grace=None)
