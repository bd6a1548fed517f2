"""NATS starts, is durable, and holds each service to the subjects reviewed for it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from importlib import import_module

import nats
import pytest
from nats.aio.client import Client
from nats.errors import Error
from nats.js.api import AckPolicy, ConsumerConfig, StreamConfig

from dozen_local.layout import SERVICES
from dozen_local.nats import NatsServer, temporary_nats
from dozen_local.nats_users import read_traffic

CREDITS = StreamConfig(name="CREDITS", subjects=["dozen.credits.v1.>"])
USAGE = "dozen.credits.v1.UsageReported"


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    """Run a server with the users of all services."""
    with temporary_nats() as server:
        yield server


@asynccontextmanager
async def connected(server: NatsServer, service: str) -> AsyncIterator[tuple[Client, asyncio.Queue[str]]]:
    """Connect as a service; what the server refuses goes into the queue."""
    refused: asyncio.Queue[str] = asyncio.Queue()

    async def on_error(error: Exception) -> None:
        await refused.put(str(error))

    client = await nats.connect(
        server.url(service),
        inbox_prefix=f"_INBOX_{service}".encode(),
        error_cb=on_error,
        max_reconnect_attempts=0,
    )
    try:
        yield client, refused
    finally:
        await client.close()


@pytest.mark.integration
def test_usage_goes_from_chat_to_credits(server: NatsServer) -> None:
    async def scenario() -> bytes:
        async with connected(server, "credits") as (credits, _), connected(server, "chat") as (chat, _):
            stream = credits.jetstream()
            await stream.add_stream(CREDITS)
            await chat.jetstream().publish(USAGE, b"usage")
            name = "credits-UsageReported"
            consumer = ConsumerConfig(
                name=name, durable_name=name, filter_subject=USAGE, ack_policy=AckPolicy.EXPLICIT
            )
            await stream.add_consumer("CREDITS", consumer)
            subscription = await stream.pull_subscribe_bind(name, stream="CREDITS")
            (message,) = await subscription.fetch(1)
            await message.ack_sync()
            return message.data

    assert asyncio.run(scenario()) == b"usage"


@pytest.mark.integration
@pytest.mark.parametrize(
    ("service", "subject"),
    [
        ("chat", "dozen.credits.v1.UsageRated"),
        ("chat", "dozen.models.v1.PriceChanged"),
        ("chat", "$JS.API.STREAM.DELETE.CREDITS"),
        ("chat", "$JS.API.CONSUMER.MSG.NEXT.CREDITS.credits-UsageReported"),
        ("chat", "$JS.ACK.CREDITS.credits-UsageReported.1.1.1.1.0"),
        ("credits", "$JS.API.STREAM.PURGE.CREDITS"),
        ("credits", "_INBOX_chat.answer"),
    ],
)
def test_a_service_cannot_say_what_is_not_its_own(server: NatsServer, service: str, subject: str) -> None:
    async def scenario() -> str:
        async with connected(server, service) as (client, refused):
            await client.publish(subject, b"{}")
            return await refused.get()

    assert f'permissions violation for publish to "{subject}"'.lower() in asyncio.run(scenario()).lower()


@pytest.mark.integration
@pytest.mark.parametrize("subject", ["dozen.>", "_INBOX_credits.>", "$JS.>"])
def test_a_service_cannot_hear_what_is_not_its_own(server: NatsServer, subject: str) -> None:
    async def scenario() -> str:
        async with connected(server, "chat") as (client, refused):
            await client.subscribe(subject)
            return await refused.get()

    assert "permissions violation for subscription" in asyncio.run(scenario()).lower()


@pytest.mark.integration
def test_a_wrong_password_is_refused(server: NatsServer) -> None:
    async def scenario() -> None:
        url = server.url("chat").replace(server.users["chat"].password, "guess")
        await nats.connect(url, max_reconnect_attempts=0, allow_reconnect=False)

    with pytest.raises(Error, match="Authorization Violation"):
        asyncio.run(scenario())


@pytest.mark.integration
def test_a_message_survives_a_kill(server: NatsServer) -> None:
    async def publish() -> None:
        async with connected(server, "models") as (client, _):
            stream = client.jetstream()
            await stream.add_stream(StreamConfig(name="MODELS", subjects=["dozen.models.v1.>"]))
            await stream.publish("dozen.models.v1.PriceChanged", b"price")

    async def count() -> int:
        async with connected(server, "models") as (client, _):
            return (await client.jetstream().stream_info("MODELS")).state.messages

    asyncio.run(publish())
    server.process.kill()
    server.stop()
    server.start()
    assert asyncio.run(count()) == 1


def test_every_service_has_a_user() -> None:
    assert set(read_traffic()) == set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_the_events_of_a_service_exist(service: str) -> None:
    traffic = read_traffic()[service]
    subjects = list(traffic.publishes)
    for domain, events in traffic.consumes.items():
        subjects += [f"dozen.{domain}.v1.{event}" for event in events]
    for subject in subjects:
        _, domain, version, event = subject.split(".")[:4]
        assert hasattr(import_module(f"dozen.{domain}.{version}.{domain}_events_pb2"), event)
