"""From the outbox to JetStream: nothing is lost, and nothing comes twice."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from nats.aio.client import Client

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.bus import Bus, NotConnected
from dozen_chassis.events import Envelope
from dozen_chassis.outbox import BATCH, MOST_MERGED_BYTES, GroupCommit, PublishFailed, Relay
from dozen_chassis.postgres import Database, Repository
from dozen_local.nats import temporary_nats
from dozen_testing.conditions import eventually
from dozen_testing.tasks import running

integration = pytest.mark.integration


@dataclass
class FakePublisher:
    """Keeps what is published, or hands it on, or refuses it."""

    pass_on: Callable[[Envelope], Awaitable[None]] | None = None
    refused: set[str] = field(default_factory=set)
    published: list[Envelope] = field(default_factory=list)

    async def publish(self, envelope: Envelope) -> None:
        if name_of(envelope) in self.refused:
            raise NotConnected()
        self.published.append(envelope)
        if self.pass_on:
            await self.pass_on(envelope)

    @property
    def names(self) -> list[str]:
        return list(map(name_of, self.published))


def name_of(envelope: Envelope) -> str:
    return UsageReported.FromString(envelope.payload).records[0].request_id


async def emit(database: Database, *names: str) -> None:
    async with Repository(database).transaction() as tx:
        for name in names:
            await tx.emit(UsageReported(records=[UsageRecord(request_id=name)]))


async def is_empty(database: Database) -> bool:
    return bool(await database.pool.fetchval("select not exists (select from outbox)"))


async def stored(client: Client) -> list[str]:
    """Give what is in the stream of credits, in its order."""
    jetstream = client.jetstream()
    count = (await jetstream.stream_info("CREDITS")).state.messages
    subscription = await jetstream.subscribe("dozen.credits.v1.>")
    messages = [await subscription.next_msg(timeout=5) for _ in range(count)]
    return [UsageReported.FromString(message.data).records[0].request_id for message in messages]


@integration
async def test_what_was_committed_is_published_in_its_order(database: Database) -> None:
    publisher = FakePublisher()
    async with running(Relay(database, publisher).run()):
        await emit(database, "a", "b", "c")
        await emit(database, "d")
        await eventually(lambda: is_empty(database))
    assert publisher.names == ["a", "b", "c", "d"]
    assert len({envelope.headers["Nats-Msg-Id"] for envelope in publisher.published}) == 4
    assert all(envelope.headers["Nats-Msg-Id"] == envelope.id for envelope in publisher.published)


@integration
async def test_more_than_a_batch_is_published_at_once(database: Database) -> None:
    publisher = FakePublisher()
    names = [str(number) for number in range(2 * BATCH + 1)]
    await emit(database, *names)
    async with running(Relay(database, publisher).run()):
        await eventually(lambda: is_empty(database))
    assert publisher.names == names


@integration
async def test_what_another_process_left_is_found(database: Database) -> None:
    await emit(database, "left")
    database.outbox_filled.clear()  # a new process has heard of nothing
    publisher = FakePublisher()
    async with running(Relay(database, publisher).run()):
        await eventually(lambda: is_empty(database))
    assert publisher.names == ["left"]


@integration
async def test_what_is_refused_stays_and_the_rest_goes(database: Database) -> None:
    publisher = FakePublisher(refused={"b"})
    async with running(Relay(database, publisher).run()):
        await emit(database, "a", "b", "c")
        await eventually(lambda: database.pool.fetchval("select count(*) = 1 from outbox"))
        publisher.refused.clear()
        await emit(database, "d")
        await eventually(lambda: is_empty(database))
    assert publisher.names == ["a", "c", "b", "d"]


@integration
async def test_killed_before_the_delete_it_publishes_again_and_jetstream_drops_it(
    database: Database, bus: Bus, nats_client: Client
) -> None:
    stuck = asyncio.Event()

    async def publish_and_hang(envelope: Envelope) -> None:
        await bus.publish(envelope)
        stuck.set()
        await asyncio.Event().wait()

    await emit(database, "a", "b")
    killed, next_one = FakePublisher(publish_and_hang), FakePublisher(bus.publish)
    async with running(Relay(database, killed).run()):
        await asyncio.wait_for(stuck.wait(), 20)
        await eventually(lambda: _has(nats_client, 2))
    assert not await is_empty(database)
    async with running(Relay(database, next_one).run()):
        await eventually(lambda: is_empty(database))
    assert [envelope.id for envelope in killed.published] == [envelope.id for envelope in next_one.published]
    assert await stored(nats_client) == ["a", "b"]


@integration
async def test_what_is_kept_outlives_a_killed_relay_and_a_lost_outbox(postgres_dsn: str) -> None:
    database = await Database.open(postgres_dsn, keeps=[UsageReported])

    async def kept() -> list[tuple[str, str]]:
        rows = await database.pool.fetch("select event_id, payload from kept_events order by emitted_at")
        return [
            (str(row["event_id"]), UsageReported.FromString(row["payload"]).records[0].request_id)
            for row in rows
        ]

    async def hang(envelope: Envelope) -> None:
        stuck.set()
        await asyncio.Event().wait()

    stuck = asyncio.Event()
    killed, next_one = FakePublisher(hang), FakePublisher()
    await emit(database, "a")
    async with running(Relay(database, killed).run()):
        await asyncio.wait_for(stuck.wait(), 20)
    async with running(Relay(database, next_one).run()):
        await eventually(lambda: is_empty(database))
    await emit(database, "b")
    await database.pool.execute("delete from outbox")
    assert [name for _, name in await kept()] == ["a", "b"]
    assert [identifier for identifier, _ in await kept()][:1] == [one.id for one in next_one.published]
    await database.close()


async def _has(client: Client, messages: int) -> bool:
    return (await client.jetstream().stream_info("CREDITS")).state.messages == messages


@integration
async def test_relays_side_by_side_publish_each_row_once(
    postgres_dsn: str, database: Database, bus: Bus, nats_client: Client
) -> None:
    publishers = [FakePublisher(bus.publish) for _ in range(2)]
    other = await Database.open(postgres_dsn)
    names = [str(number) for number in range(3 * BATCH)]
    async with running(Relay(database, publishers[0]).run()), running(Relay(other, publishers[1]).run()):
        for start in range(0, len(names), 50):
            await emit(database, *names[start : start + 50])
            other.outbox_filled.set()
        await eventually(lambda: is_empty(database))
    await other.close()
    assert sorted(publishers[0].names + publishers[1].names) == sorted(names)
    assert sorted(await stored(nats_client)) == sorted(names)


@integration
async def test_nothing_is_lost_while_nats_is_down(database: Database) -> None:
    with temporary_nats() as server:
        bus = Bus(server.url("credits"))
        async with running(bus.run("credits")), running(Relay(database, bus).run()):
            await emit(database, "before")
            await eventually(lambda: is_empty(database))
            await asyncio.to_thread(server.stop)
            await emit(database, "while it is down")
            await emit(database, "and again")
            assert not await is_empty(database)
            await asyncio.to_thread(server.start)
            await eventually(lambda: is_empty(database))
            info = await bus.jetstream.stream_info("CREDITS")
    assert info.state.messages == 3


@dataclass
class Ledger:
    """Keeps what is written, transaction by transaction."""

    transactions: list[list[str]] = field(default_factory=list)
    may_write: asyncio.Event = field(default_factory=asyncio.Event)
    writing: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, records: list[str]) -> None:
        self.writing.set()
        await self.may_write.wait()
        if "wrong" in records:
            raise ValueError("wrong")
        self.transactions.append(records)

    @property
    def records(self) -> list[str]:
        return [record for transaction in self.transactions for record in transaction]


@pytest.fixture
def ledger() -> Ledger:
    ledger = Ledger()
    ledger.may_write.set()
    return ledger


async def test_records_of_many_requests_share_a_transaction(ledger: Ledger) -> None:
    commits = GroupCommit(ledger.write)
    names = [str(number) for number in range(100)]
    async with running(commits.run()):
        await asyncio.gather(*map(commits.put, names))
        assert ledger.transactions == [names]
        await commits.put("later")
    assert ledger.transactions == [names, ["later"]]


async def test_a_transaction_is_not_longer_than_allowed(ledger: Ledger) -> None:
    commits = GroupCommit(ledger.write, most=40)
    async with running(commits.run()):
        await asyncio.gather(*(commits.put(str(number)) for number in range(100)))
    assert [len(transaction) for transaction in ledger.transactions] == [40, 40, 20]


async def test_an_error_reaches_all_who_wait_and_nobody_else(ledger: Ledger) -> None:
    commits = GroupCommit(ledger.write)
    async with running(commits.run()):
        results = await asyncio.gather(commits.put("right"), commits.put("wrong"), return_exceptions=True)
        assert [str(result) for result in results] == ["wrong", "wrong"]
        await commits.put("next")
    assert ledger.records == ["next"]


async def test_a_record_is_kept_though_its_request_is_cancelled(ledger: Ledger) -> None:
    commits = GroupCommit(ledger.write)
    putting = asyncio.create_task(commits.put("a"))
    async with running(commits.run()):
        await asyncio.sleep(0)
        putting.cancel()
        await commits.put("b")
    assert putting.cancelled()
    assert ledger.records == ["a", "b"]


async def test_what_waits_at_the_end_is_still_written(ledger: Ledger) -> None:
    commits = GroupCommit(ledger.write, window=3600)
    async with running(commits.run()):
        putting = asyncio.create_task(commits.put("a"))
        await asyncio.sleep(0)
    await putting
    assert ledger.records == ["a"]


async def test_what_is_being_written_at_the_end_is_written_to_its_end(ledger: Ledger) -> None:
    ledger.may_write.clear()
    commits = GroupCommit(ledger.write)
    committing = asyncio.create_task(commits.run())
    putting = [asyncio.create_task(commits.put("a"))]
    await asyncio.wait_for(ledger.writing.wait(), 5)
    putting.append(asyncio.create_task(commits.put("b")))
    committing.cancel()
    await asyncio.sleep(0)
    ledger.may_write.set()
    with suppress(asyncio.CancelledError):
        await committing
    async with asyncio.timeout(5):
        await asyncio.gather(*putting)
    assert ledger.transactions == [["a"], ["b"]]


async def test_records_that_nobody_waits_for_are_written_or_lost(ledger: Ledger) -> None:
    commits = GroupCommit(ledger.write)
    async with running(commits.run()):
        commits.add("light")
        await commits.put("heavy")
        assert ledger.records == ["light", "heavy"]
        commits.add("lost")
        with pytest.raises(ValueError, match="wrong"):
            await commits.put("wrong")
    assert ledger.records == ["light", "heavy"]


async def test_not_too_many_wait_that_nobody_waits_for(ledger: Ledger) -> None:
    commits = GroupCommit(ledger.write, most=2)
    for number in range(1000):
        commits.add(str(number))
    async with running(commits.run()):
        await commits.put("heavy")
    assert ledger.records == [*map(str, range(40)), "heavy"]


async def emit_merging(database: Database, *names: str) -> None:
    for name in names:
        await Repository(database).emit(UsageReported(records=[UsageRecord(request_id=name)]), may_merge=True)


def all_names(publisher: FakePublisher) -> list[list[str]]:
    return [
        [record.request_id for record in UsageReported.FromString(one.payload).records]
        for one in publisher.published
    ]


@integration
async def test_events_that_may_merge_are_published_as_one_between_those_that_may_not(
    database: Database,
) -> None:
    publisher = FakePublisher()
    await emit_merging(database, "a", "b")
    await emit(database, "alone")
    await emit_merging(database, "c", "d", "e")
    assert await Relay(database, publisher).relay_batch() == 6
    assert all_names(publisher) == [["a", "b"], ["alone"], ["c", "d", "e"]]
    assert await is_empty(database)
    assert len({envelope.id for envelope in publisher.published}) == 3
    assert all(envelope.headers["Nats-Msg-Id"] == envelope.id for envelope in publisher.published)


@integration
async def test_what_is_refused_as_one_stays_and_may_be_one_with_more(database: Database) -> None:
    publisher = FakePublisher(refused={"a"})
    await emit_merging(database, "a", "b")
    with pytest.raises(PublishFailed):
        await Relay(database, publisher).relay_batch()
    await emit_merging(database, "c")
    publisher.refused.clear()
    await Relay(database, publisher).relay_batch()
    assert all_names(publisher) == [["a", "b", "c"]]
    assert await is_empty(database)


@integration
async def test_events_are_merged_up_to_a_size(database: Database) -> None:
    publisher = FakePublisher()
    large = "x" * (MOST_MERGED_BYTES // 2)
    await emit_merging(database, large, large, "small")
    await Relay(database, publisher).relay_batch()
    assert [len(names) for names in all_names(publisher)] == [1, 2]


@integration
async def test_an_event_that_may_merge_waits_a_moment_for_others(database: Database) -> None:
    publisher = FakePublisher()
    async with running(Relay(database, publisher).run()):
        await emit_merging(database, "a", "b")
        assert not database.outbox_filled.is_set()
        await eventually(lambda: is_empty(database))
    assert all_names(publisher) == [["a", "b"]]
