"""Durable consumers: delivered at least once, with an effect exactly once, and never lost."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import asyncpg
import nats.errors
import pytest
from google.protobuf.message import Message
from nats.aio.client import Client
from opentelemetry import context, trace

from dozen.credits.v1.credits_events_pb2 import CreditsGranted, UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen.models.v1.models_events_pb2 import PriceChanged
from dozen_chassis import consumer
from dozen_chassis.bus import Bus
from dozen_chassis.consumer import Consumer, Subscription, bind, concurrently
from dozen_chassis.errors import DependencyUnavailable, InvalidRequest
from dozen_chassis.events import Delivery, Envelope
from dozen_chassis.logging import request_id
from dozen_chassis.postgres import Database, Repository
from dozen_chassis.telemetry import trace_context
from dozen_local.nats import temporary_nats
from dozen_testing.conditions import eventually
from dozen_testing.tasks import running

pytestmark = pytest.mark.integration

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SUBJECT = "dozen.credits.v1.UsageReported"

Failure = Callable[[str, Delivery], Awaitable[None]]


@dataclass
class Ledger:
    """Handles events by writing their names down, once each; may fail before or after."""

    database: Database
    before: Failure | None = None
    after: Failure | None = None
    handled: "asyncio.Queue[tuple[str, Delivery]]" = field(default_factory=asyncio.Queue)

    async def on_usage(self, event: UsageReported, delivery: Delivery) -> None:
        name = event.records[0].request_id
        if self.before:
            await self.before(name, delivery)
        async with Repository(self.database).transaction() as tx:
            if await tx.first_delivery(delivery.id):
                await tx.db.execute("insert into effects (name) values ($1)", name)
        if self.after:
            await self.after(name, delivery)
        self.handled.put_nowait((name, delivery))

    async def next(self) -> tuple[str, int]:
        """Give the next event that was handled, and at which attempt."""
        name, delivery = await asyncio.wait_for(self.handled.get(), 30)
        return name, delivery.attempt

    async def effects(self) -> list[str]:
        rows = await self.database.pool.fetch("select name from effects order by id")
        return [row["name"] for row in rows]

    async def dead_letters(self) -> list[asyncpg.Record]:
        return await self.database.pool.fetch("select * from dead_letters order by created_at")


@pytest.fixture
async def ledger(database: Database) -> Ledger:
    await database.pool.execute("create table effects (id serial, name text)")
    return Ledger(database)


@asynccontextmanager
async def consuming(
    bus: Bus, database: Database, subscription: Subscription, *, is_traced: bool = False
) -> AsyncIterator[asyncio.Event]:
    """Run a consumer beside the block; what is given stops it, as does the end of the block."""
    stopping = asyncio.Event()
    consumer = Consumer("credits", subscription, bus, database, is_traced=is_traced)
    work = asyncio.create_task(consumer.run(stopping))
    try:
        yield stopping
    finally:
        stopping.set()
        async with asyncio.timeout(30):
            await work


def usage(name: str) -> UsageReported:
    return UsageReported(records=[UsageRecord(request_id=name)])


async def publish(bus: Bus, *names: str, suffix: str = "") -> None:
    for name in names:
        await bus.publish(Envelope.seal(usage(name), suffix))


def fails_once(error: Exception) -> Failure:
    async def fail(_: str, delivery: Delivery) -> None:
        if delivery.attempt == 1:
            raise error

    return fail


async def test_events_are_handled_in_their_order(bus: Bus, database: Database, ledger: Ledger) -> None:
    names = [str(number) for number in range(100)]
    await publish(bus, *names[:50])
    async with consuming(bus, database, Subscription(UsageReported, ledger.on_usage)):
        await publish(bus, *names[50:])
        assert [await ledger.next() for _ in names] == [(name, 1) for name in names]


async def test_a_handler_knows_which_delivery_it_is(bus: Bus, database: Database, ledger: Ledger) -> None:
    envelope = Envelope.seal(usage("a"))
    seen: list[str | None] = []

    async def look(_: str, __: Delivery) -> None:
        seen.append(request_id.get())

    ledger.before = look
    await bus.publish(envelope)
    async with consuming(bus, database, Subscription(UsageReported, ledger.on_usage)):
        _, delivery = await asyncio.wait_for(ledger.handled.get(), 30)
    assert delivery.id == envelope.id
    assert delivery.published_at.isoformat() >= envelope.headers["ce-time"]
    assert seen == [envelope.id]


@pytest.mark.parametrize("error", [DependencyUnavailable(), ZeroDivisionError("a mistake")])
async def test_what_may_pass_is_delivered_again(
    bus: Bus, database: Database, ledger: Ledger, error: Exception
) -> None:
    ledger.before = fails_once(error)
    async with consuming(bus, database, Subscription(UsageReported, ledger.on_usage)):
        await publish(bus, "a")
        assert await ledger.next() == ("a", 2)
    assert await ledger.dead_letters() == []


async def test_an_event_that_is_delivered_twice_has_its_effect_once(
    bus: Bus, database: Database, ledger: Ledger
) -> None:
    ledger.after = fails_once(DependencyUnavailable())
    async with consuming(bus, database, Subscription(UsageReported, ledger.on_usage)):
        await publish(bus, "a")
        assert await ledger.next() == ("a", 2)
    assert await ledger.effects() == ["a"]


async def test_what_cannot_be_handled_is_set_aside_and_the_next_is_handled(
    bus: Bus, database: Database, ledger: Ledger
) -> None:
    async def refuse(name: str, _: Delivery) -> None:
        if name == "bad":
            raise InvalidRequest("This cannot be.")

    ledger.before = refuse
    bad = Envelope.seal(usage("bad"))
    async with consuming(bus, database, Subscription(UsageReported, ledger.on_usage)):
        await bus.publish(bad)
        await publish(bus, "good")
        assert await ledger.next() == ("good", 1)
        await eventually(lambda: _settled(bus))
    (letter,) = await ledger.dead_letters()
    assert (letter["event_id"], letter["subject"], letter["payload"], letter["attempts"]) == (
        bad.id,
        SUBJECT,
        bad.payload,
        1,
    )
    assert "This cannot be." in letter["error"]


async def _settled(bus: Bus) -> bool:
    info = await bus.jetstream.consumer_info("CREDITS", "credits-UsageReported")
    return bool(info.num_ack_pending == 0 and info.num_pending == 0)


async def test_what_breaks_every_time_is_set_aside_at_last(
    bus: Bus, database: Database, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: str, __: Delivery) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(consumer, "MOST_ATTEMPTS", 2)
    ledger.before = fail
    async with consuming(bus, database, Subscription(UsageReported, ledger.on_usage)):
        await publish(bus, "a")
        await eventually(lambda: database.pool.fetchval("select exists (select from dead_letters)"))
    (letter,) = await ledger.dead_letters()
    assert letter["attempts"] == 2
    assert "ZeroDivisionError" in letter["error"]


async def test_a_payload_that_is_no_event_is_set_aside(
    bus: Bus, database: Database, ledger: Ledger, nats_client: Client
) -> None:
    await nats_client.jetstream().publish(SUBJECT, b"\xff\xff")
    await publish(bus, "good")
    async with consuming(bus, database, Subscription(UsageReported, ledger.on_usage)):
        assert await ledger.next() == ("good", 1)
    (letter,) = await ledger.dead_letters()
    assert (letter["event_id"], letter["payload"]) == ("CREDITS-1", b"\xff\xff")


async def test_events_arrive_though_nats_restarts_in_the_middle(database: Database, ledger: Ledger) -> None:
    names = [str(number) for number in range(20)]
    with temporary_nats() as server:
        bus = Bus(server.url("credits"))
        async with (
            running(bus.run("credits")),
            consuming(bus, database, Subscription(UsageReported, ledger.on_usage)),
        ):
            await asyncio.wait_for(bus.connected(), 20)
            await publish(bus, *names[:10])
            await ledger.next()
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
            again = Envelope.seal(usage(names[10]))
            await eventually(lambda: _publishes(bus, again))
            await publish(bus, *names[11:])
            await eventually(lambda: _effects(ledger, len(names)), seconds=60)
    assert sorted(await ledger.effects()) == sorted(names)


async def _publishes(bus: Bus, envelope: Envelope) -> bool:
    try:
        await bus.publish(envelope)
    except nats.errors.Error:
        return False
    return True


async def _effects(ledger: Ledger, count: int) -> bool:
    return len(await ledger.effects()) >= count


async def test_a_stream_that_appears_later_is_read_from_its_beginning(
    bus: Bus, database: Database, nats_client: Client
) -> None:
    prices: asyncio.Queue[str] = asyncio.Queue()

    async def on_price_changed(event: PriceChanged, _: Delivery) -> None:
        prices.put_nowait(event.price.id)

    calls = await nats_client.subscribe("$JS.API.CONSUMER.CREATE.MODELS.>")
    async with consuming(bus, database, Subscription(PriceChanged, on_price_changed)):
        await calls.next_msg(timeout=5)
        jetstream = nats_client.jetstream()
        await jetstream.add_stream(name="MODELS", subjects=["dozen.models.v1.>"])
        event = PriceChanged()
        event.price.id = "price-1"
        await jetstream.publish("dozen.models.v1.PriceChanged", event.SerializeToString())
        assert await asyncio.wait_for(prices.get(), 30) == "price-1"


async def test_a_consumer_that_is_gone_is_made_again(
    bus: Bus, database: Database, ledger: Ledger, nats_client: Client
) -> None:
    async with consuming(bus, database, Subscription(UsageReported, ledger.on_usage)):
        await publish(bus, "a")
        assert await ledger.next() == ("a", 1)
        await nats_client.jetstream().delete_consumer("CREDITS", "credits-UsageReported")
        await publish(bus, "b")
        assert (await ledger.next())[0] == "a"  # a new consumer starts at the beginning
        assert (await ledger.next())[0] == "b"
    assert await ledger.effects() == ["a", "b"]


async def test_a_service_that_stops_finishes_what_it_has_begun(
    bus: Bus, database: Database, ledger: Ledger
) -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def wait(_: str, __: Delivery) -> None:
        begun.set()
        await release.wait()

    ledger.before = wait
    await publish(bus, "begun", "not begun")
    async with consuming(bus, database, Subscription(UsageReported, ledger.on_usage)) as stopping:
        await asyncio.wait_for(begun.wait(), 30)
        stopping.set()
        release.set()
    assert await ledger.effects() == ["begun"]
    await eventually(lambda: _acknowledged(bus, 1))


async def _acknowledged(bus: Bus, sequence: int) -> bool:
    info = await bus.jetstream.consumer_info("CREDITS", "credits-UsageReported")
    return bool(info.ack_floor and info.ack_floor.stream_seq == sequence)


async def test_a_long_handler_keeps_its_event(
    bus: Bus, database: Database, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliveries: asyncio.Queue[int] = asyncio.Queue()
    release = asyncio.Event()

    async def take_long(_: str, delivery: Delivery) -> None:
        deliveries.put_nowait(delivery.attempt)
        await release.wait()

    monkeypatch.setattr("dozen_chassis.bus.ACK_SECONDS", 0.6)
    monkeypatch.setattr("dozen_chassis.consumer.ACK_SECONDS", 0.6)
    ledger.before = take_long
    await publish(bus, "a")
    async with consuming(bus, database, Subscription(UsageReported, ledger.on_usage, concurrency=2)):
        assert await asyncio.wait_for(deliveries.get(), 30) == 1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(deliveries.get(), 2)
        release.set()
        assert await ledger.next() == ("a", 1)


async def test_the_trace_goes_on_behind_nats(bus: Bus, database: Database, ledger: Ledger) -> None:
    traces: list[str] = []

    async def look(_: str, __: Delivery) -> None:
        traces.append(f"{trace.get_current_span().get_span_context().trace_id:032x}")

    ledger.before = look
    attached = context.attach(trace_context({"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}))
    await publish(bus, "traced")
    context.detach(attached)
    await publish(bus, "not traced")
    async with consuming(bus, database, Subscription(UsageReported, ledger.on_usage), is_traced=True):
        await ledger.next()
        await ledger.next()
    assert traces[0] == TRACE_ID
    assert traces[1] != TRACE_ID


async def test_events_can_be_handled_side_by_side(bus: Bus, database: Database, ledger: Ledger) -> None:
    together = asyncio.Barrier(3)

    async def meet(_: str, __: Delivery) -> None:
        await together.wait()

    ledger.before = meet
    (subscription,) = concurrently([Subscription(UsageReported, ledger.on_usage)], 3)
    await publish(bus, "a", "b", "c")
    async with consuming(bus, database, subscription):
        assert {(await ledger.next())[0] for _ in range(3)} == {"a", "b", "c"}


async def test_a_subscription_takes_the_subjects_it_names(
    bus: Bus, database: Database, ledger: Ledger
) -> None:
    (subscription,) = concurrently([Subscription(UsageReported, ledger.on_usage)], 1, ".chat.>")
    await publish(bus, "plain")
    await publish(bus, "other", suffix=".images.analyses")
    await publish(bus, "mine", suffix=".chat.completions.high")
    async with consuming(bus, database, subscription):
        assert await ledger.next() == ("mine", 1)
        await eventually(lambda: _settled(bus))
    assert await ledger.effects() == ["mine"]


async def test_a_table_of_handlers_is_bound_to_its_service() -> None:
    async def on_usage_reported(event: Message, delivery: Delivery, service: list[str]) -> None:
        service.append(f"usage {delivery.attempt}")

    async def on_credits_granted(event: Message, delivery: Delivery, service: list[str]) -> None:
        service.append(f"granted {delivery.attempt}")

    done: list[str] = []
    table = {UsageReported: on_usage_reported, CreditsGranted: on_credits_granted}
    for attempt, subscription in enumerate(bind(table, done)):
        await subscription.handle(subscription.event(), Delivery("event", attempt, None))  # type: ignore[arg-type]
    assert done == ["usage 0", "granted 1"]
