"""The connection to NATS, on a real server and on one that misbehaves."""

import asyncio
import json
import shutil

import pytest
from nats.aio.client import Client
from nats.errors import Error

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.models.v1.models_events_pb2 import UpstreamsObserved
from dozen_chassis.bus import STREAM_SECONDS, Bus, NotConnected
from dozen_chassis.events import Envelope
from dozen_local.nats import NatsServer, temporary_nats
from dozen_testing.conditions import eventually
from dozen_testing.tasks import running

pytestmark = pytest.mark.integration


async def pings(bus: Bus) -> bool:
    try:
        await bus.ping()
    except NotConnected:
        return False
    return True


async def test_a_published_event_is_stored(bus: Bus, nats_client: Client) -> None:
    envelope = Envelope.seal(UsageReported(), ".standard")
    await bus.publish(envelope)
    message = await nats_client.jetstream().get_msg("CREDITS", 1)
    assert message.subject == "dozen.credits.v1.UsageReported.standard"
    assert message.headers == dict(envelope.headers)


async def test_the_stream_of_a_domain_becomes_what_its_service_declares(
    nats_server: NatsServer, nats_client: Client
) -> None:
    jetstream = nats_client.jetstream()
    await jetstream.add_stream(name="CREDITS", subjects=["dozen.credits.v1.>"], max_age=60)
    bus = Bus(nats_server.url("credits"))
    async with running(bus.run("credits")):
        await asyncio.wait_for(bus.connected(), 20)
    assert (await jetstream.stream_info("CREDITS")).config.max_age == STREAM_SECONDS


async def test_nothing_is_published_without_a_connection() -> None:
    bus = Bus("nats://credits:secret@127.0.0.1:9")
    async with running(bus.run("credits")):
        with pytest.raises(NotConnected):
            await bus.publish(Envelope.seal(UsageReported()))


async def test_a_lost_connection_comes_back_by_itself() -> None:
    with temporary_nats() as server:
        bus = Bus(server.url("credits"))
        async with running(bus.run("credits")):
            await asyncio.wait_for(bus.connected(), 20)
            await asyncio.to_thread(server.stop)
            with pytest.raises(NotConnected):
                await bus.publish(Envelope.seal(UsageReported()))
            await asyncio.to_thread(server.start)
            await eventually(lambda: pings(bus))
            await bus.publish(Envelope.seal(UsageReported()))


async def test_a_server_that_comes_back_without_its_streams_gets_them_again() -> None:
    with temporary_nats() as server:
        bus = Bus(server.url("credits"))
        messages = bus.pull("CREDITS", "credits-UsageReported", "dozen.credits.v1.UsageReported", 1)
        async with running(bus.run("credits")), asyncio.timeout(60):
            await asyncio.wait_for(bus.connected(), 20)
            for number in (1, 2):
                await bus.publish(Envelope.seal(UsageReported()))
                message = await anext(messages)
                await message.ack()
                assert message.metadata.sequence.stream == 1
                if number == 1:
                    await asyncio.to_thread(server.stop)
                    shutil.rmtree(server.process.pid_file.parent / "jetstream")
                    await asyncio.to_thread(server.start)
                    await eventually(lambda: has_stream(bus))
            await messages.aclose()


async def has_stream(bus: Bus) -> bool:
    try:
        return (await bus.jetstream.stream_info("CREDITS")).state.messages == 0
    except Error:
        return False


async def test_what_may_be_lost_is_heard_by_those_who_listen(
    nats_server: NatsServer, nats_client: Client
) -> None:
    teller, hearer = Bus(nats_server.url("chat")), Bus(nats_server.url("gateway"))
    await teller.tell(UpstreamsObserved(observer="too early"))
    async with running(teller.run("chat")), running(hearer.run("gateway")):
        await asyncio.wait_for(asyncio.gather(teller.connected(), hearer.connected()), 20)
        heard = hearer.hear(UpstreamsObserved)
        first = asyncio.ensure_future(anext(heard))
        while not first.done():  # what is told before anybody listens is lost
            await nats_client.publish(f"facts.{UpstreamsObserved.DESCRIPTOR.full_name}", b"\xff")
            await teller.tell(UpstreamsObserved(observer="chat-1"))
            await asyncio.wait((first,), timeout=0.05)
        assert first.result().observer == "chat-1"
        await heard.aclose()


async def test_a_connection_that_is_closed_for_good_ends_the_work() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "x", "version": "2.12.0", "max_payload": 1000, "headers": True, "proto": 1}
        writer.write(f"INFO {json.dumps(info)}\r\n".encode())
        await reader.readuntil(b"PING\r\n")
        writer.write(b"PONG\r\n")
        await reader.readuntil(b"STREAM.CREATE")
        writer.write(b"-ERR 'User Authentication Expired'\r\n")
        await writer.drain()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        with pytest.raises(NotConnected):
            async with asyncio.timeout(20):
                await Bus(f"nats://credits:secret@{host}:{port}").run("credits")
