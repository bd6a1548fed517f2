"""Several replicas that draw permits: on a real database, and on a fake of it whose time is the test's."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import asyncpg
import pytest

from dozen_chassis.postgres import Database
from dozen_gateway.domain.allotment import Allotment, Answer, Exchange
from dozen_gateway.domain.gcra import Bucket
from dozen_gateway.domain.limits import Cost, Exceeded, Kind, Measure, Subject
from dozen_gateway.domain.permits import Permits
from dozen_gateway.domain.stock import SLOT_SECONDS
from dozen_gateway.errors.decisions import LimitsUnavailable
from dozen_gateway.repository import limits as repository
from dozen_gateway.repository.limits import LimitsRepository
from dozen_gateway.service.limits import DRAWS, REFUSALS, Limiter, LimitStore
from dozen_testing.conditions import eventually
from dozen_testing.tasks import running

REQUESTS = Subject("acme", Kind.KEY, "key_1", Measure.REQUESTS)
TOKENS = Subject("acme", Kind.ACCOUNT, "", Measure.TOKENS)
SLOTS = Subject("acme", Kind.MODEL, "smol", Measure.CONCURRENT)


class Store(LimitStore, Protocol):
    """A store whose time a test can let pass, and that it can take away."""

    async def skip(self, seconds: float) -> None: ...

    async def fail(self, down: bool) -> None: ...

    async def slots(self) -> dict[str, int]: ...


@dataclass
class FakeStore:
    """A database as it should be."""

    now: float = 0.0
    down: bool = False
    buckets: dict[Subject, Bucket] = field(default_factory=dict)
    leases: dict[tuple[Subject, str], tuple[int, float]] = field(default_factory=dict)
    gate: asyncio.Event | None = None
    calls: list[Exchange] = field(default_factory=list)
    called: asyncio.Event = field(default_factory=asyncio.Event)

    async def exchange(self, holder: str, exchange: Exchange) -> Answer:
        self.calls.append(exchange)
        self.called.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise LimitsUnavailable()
        subjects = exchange.subjects()
        others = dict.fromkeys(subjects, 0)
        for (subject, other), (slots, expires_at) in self.leases.items():
            if subject in subjects and other != holder and expires_at > self.now:
                others[subject] += slots
        rates = {subject for subject in subjects if subject.measure is not Measure.CONCURRENT}
        buckets = {subject: self.buckets.get(subject, Bucket()) for subject in rates}
        allotment = Allotment(buckets, others, exchange.held)
        answer = allotment.settle(exchange, int((1e9 + self.now) * 1e9))
        self.buckets |= allotment.buckets
        for subject, slots in allotment.slots.items():
            self.leases[subject, holder] = (slots, self.now + SLOT_SECONDS)
        return answer

    async def forget_limits(self) -> int:
        forgotten, self.buckets = len(self.buckets), {}
        return forgotten

    async def skip(self, seconds: float) -> None:
        self.now += seconds

    async def fail(self, down: bool) -> None:
        self.down = down

    async def slots(self) -> dict[str, int]:
        return {holder: slots for (_, holder), (slots, _) in self.leases.items() if slots}


class RealStore(LimitsRepository):
    """The database, with everything in it that much older where time is to pass."""

    async def skip(self, seconds: float) -> None:
        nanoseconds = int(seconds * 1e9)
        for row in await self.db.fetch("select * from rate_limits"):
            lows = [[at - nanoseconds, lack] for at, lack in json.loads(row["lows"])]
            await self.db.execute(
                "update rate_limits set tat = $2, lows = $3 where subject = $1",
                row["subject"], row["tat"] - nanoseconds, json.dumps(lows),
            )  # fmt: skip
        await self.db.execute(
            "update concurrency_slots set expires_at = expires_at - make_interval(secs => $1)", seconds
        )

    async def fail(self, down: bool) -> None:
        names = ("rate_limits", "away") if down else ("away", "rate_limits")
        await self.db.execute("alter table {} rename to {}".format(*names))

    async def slots(self) -> dict[str, int]:
        rows = await self.db.fetch("select holder, slots from concurrency_slots")
        return {row["holder"]: row["slots"] for row in rows}


@dataclass
class Replica:
    """A replica that decides on requests as the gateway does."""

    limiter: Limiter
    permits: Permits
    monotonic: Callable[[], float]

    async def admit(self, *costs: Cost) -> tuple[Cost, ...] | Exceeded:
        while True:
            verdict = self.permits.weigh(costs, self.monotonic())
            if isinstance(verdict, Exceeded):
                return verdict
            if not verdict:
                return self.permits.take(costs)
            await self.limiter.draw(verdict)

    async def takes(self, *costs: Cost) -> tuple[Cost, ...]:
        verdict = await self.admit(*costs)
        assert isinstance(verdict, tuple), verdict
        return verdict

    async def refuses(self, *costs: Cost) -> Exceeded:
        verdict = await self.admit(*costs)
        assert isinstance(verdict, Exceeded), verdict
        return verdict

    async def flush(self) -> None:
        """Tell the database what it should hear."""
        self.limiter.flush()
        while self.limiter._tasks:
            await asyncio.wait(self.limiter._tasks)


@dataclass
class World:
    """The replicas and what they share. Time stands still, but for that of a real database."""

    store: Store
    now: float = 1000.0
    replicas: int = 0
    began: float = field(default_factory=time.monotonic)

    def replica(self) -> Replica:
        permits = Permits()
        limiter = Limiter(
            self.store, permits, f"replica {self.replicas}", patience=20, monotonic=lambda: self.now
        )
        self.replicas += 1
        return Replica(limiter, permits, lambda: self.now)

    async def skip(self, seconds: float) -> None:
        self.now += seconds
        await self.store.skip(seconds)

    def bound(self, limit: int) -> int:
        """Give how many are admitted of a full bucket until now."""
        return int(limit * (1 + (time.monotonic() - self.began) / 60))


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.integration)])
def world(request: pytest.FixtureRequest) -> World:
    return World(FakeStore() if request.param == "fake" else RealStore(request.getfixturevalue("database")))


def admitted(verdicts: list[tuple[Cost, ...] | Exceeded]) -> list[tuple[Cost, ...]]:
    return [verdict for verdict in verdicts if isinstance(verdict, tuple)]


async def test_so_many_requests_are_admitted_by_all_replicas_together(world: World) -> None:
    replicas, cost = [world.replica() for _ in range(4)], Cost(REQUESTS, 30, 1)
    verdicts = await asyncio.gather(*(replica.admit(cost) for replica in replicas for _ in range(40)))
    assert 30 <= len(admitted(verdicts)) <= world.bound(30)
    refusal = next(verdict for verdict in verdicts if isinstance(verdict, Exceeded))
    assert 0 < refusal.retry_after <= 2
    await world.skip(20)
    verdicts = await asyncio.gather(*(replica.admit(cost) for replica in replicas for _ in range(40)))
    assert 10 <= len(admitted(verdicts)) <= 10 + world.bound(30) - 30


async def test_what_a_replica_has_drawn_ahead_comes_back_when_it_is_too_old(world: World) -> None:
    one, other, high = world.replica(), world.replica(), 12_000
    await one.takes(Cost(REQUESTS, high, 1))
    await other.takes(Cost(REQUESTS, high, high - 100))
    await other.refuses(Cost(REQUESTS, high, high))
    await world.skip(1)
    await one.flush()
    # What was used is 11,901, of which a second has replaced 200.
    await other.takes(Cost(REQUESTS, high, 299))


async def test_all_limits_of_a_request_have_room_or_nothing_is_drawn(world: World) -> None:
    replica, both = world.replica(), (Cost(REQUESTS, 1, 1), Cost(TOKENS, 100, 60), Cost(SLOTS, 2, 1))
    running = await replica.takes(*both)
    refusal = await replica.refuses(*both)
    assert refusal.cost.subject is both[0].subject
    await replica.takes(both[2])
    await replica.refuses(both[2])
    replica.limiter.finish(running, 0)
    await replica.flush()
    await replica.takes(Cost(TOKENS, 100, 100))


async def test_tokens_that_were_reserved_and_not_used_are_free_for_other_replicas(world: World) -> None:
    one, other = world.replica(), world.replica()
    reserved = await one.takes(Cost(TOKENS, 600, 600))
    refusal = await other.refuses(Cost(TOKENS, 600, 300))
    assert refusal.retry_after == pytest.approx(30, abs=10)
    one.limiter.finish(reserved, 100)
    await one.flush()
    await world.skip(0.25)
    await other.takes(Cost(TOKENS, 600, 500))


async def test_tokens_that_time_has_replaced_are_not_given_back_again(world: World) -> None:
    replica = world.replica()
    reserved = await replica.takes(Cost(TOKENS, 600, 600))
    await world.skip(90)
    await replica.takes(Cost(TOKENS, 600, 600))
    replica.limiter.finish(reserved, 0)
    await replica.flush()
    await replica.refuses(Cost(TOKENS, 600, 500))


async def test_so_many_requests_run_at_a_time(world: World) -> None:
    replicas, cost = [world.replica() for _ in range(3)], Cost(SLOTS, 5, 1)
    verdicts = await asyncio.gather(*(replica.admit(cost) for _ in range(5) for replica in replicas))
    assert [isinstance(verdict, tuple) for verdict in verdicts].count(True) == 5
    for replica, verdict in zip(replicas * 5, verdicts, strict=True):
        if isinstance(verdict, tuple):
            replica.limiter.finish(verdict, 0)
    for replica in replicas:
        await replica.flush()
    assert await world.store.slots() == {}
    await world.skip(0.25)
    for _ in range(5):
        await replicas[0].takes(cost)


async def test_slots_are_renewed_and_those_of_a_replica_that_dies_expire(world: World) -> None:
    alive, dying, cost = world.replica(), world.replica(), Cost(SLOTS, 2, 1)
    running = await alive.takes(cost)
    await dying.takes(cost)
    for _ in range(3):
        await world.skip(19)
        await alive.flush()
        await alive.refuses(cost)
    await world.skip(4)
    await alive.takes(cost)
    await alive.refuses(cost)
    alive.limiter.finish(running, 0)


async def test_a_slot_that_ends_is_told_at_once(world: World) -> None:
    one, other, cost = world.replica(), world.replica(), Cost(SLOTS, 1, 1)
    taken = await one.takes(cost)
    async with running(one.limiter.run()):
        one.limiter.finish(taken, 0)

        async def is_free() -> bool:
            return await world.store.slots() == {}

        assert await eventually(is_free)
        await other.takes(cost)


async def test_a_replica_that_ends_gives_back_everything(world: World) -> None:
    ending, other = world.replica(), world.replica()
    await ending.takes(Cost(TOKENS, 1200, 2), Cost(SLOTS, 64, 1))
    assert await world.store.slots() == {"replica 0": 4}
    async with running(ending.limiter.run()):
        await asyncio.sleep(0)
    assert await world.store.slots() == {}
    await other.takes(Cost(TOKENS, 1200, 1198))


async def test_without_the_database_permits_run_out_and_then_nobody_is_admitted(world: World) -> None:
    replica, cost = world.replica(), Cost(REQUESTS, 1200, 1)
    await replica.takes(cost)
    await world.store.fail(True)
    for _ in range(9):
        await replica.takes(cost)
    with pytest.raises(LimitsUnavailable):
        await replica.admit(cost)
    with pytest.raises(LimitsUnavailable):
        await replica.admit(cost)
    await world.store.fail(False)
    await world.skip(0.25)
    await replica.takes(cost)


async def test_slots_whose_exchange_failed_are_right_again_with_the_next(world: World) -> None:
    replica, cost = world.replica(), Cost(SLOTS, 2, 1)
    taken = await replica.takes(cost)
    await world.store.fail(True)
    replica.limiter.finish(taken, 0)
    await replica.flush()
    await world.store.fail(False)
    await world.skip(0.25)
    assert await world.store.slots() == {"replica 0": 1}
    await replica.flush()
    assert await world.store.slots() == {}


async def test_draws_and_refusals_are_counted(world: World) -> None:
    def counted() -> list[float]:
        counters = [DRAWS.labels("granted"), DRAWS.labels("refused"), REFUSALS.labels("key", "requests")]
        return [counter._value.get() for counter in counters]

    before, replica, cost = counted(), world.replica(), Cost(REQUESTS, 2, 1)
    for _ in range(2):
        await replica.takes(cost)
    await replica.refuses(cost)
    assert [now - then for now, then in zip(counted(), before, strict=True)] == [2, 1, 1]


async def test_orders_of_an_account_wait_for_its_exchange_and_go_together_in_their_order() -> None:
    store = FakeStore(gate=asyncio.Event())
    replica, cost = World(store).replica(), Cost(REQUESTS, 60, 1)
    first = asyncio.ensure_future(replica.limiter.draw((cost,)))
    await store.called.wait()
    waiting = [asyncio.ensure_future(replica.limiter.draw((cost,))) for _ in range(4)]
    elsewhere = cost._replace(subject=REQUESTS._replace(account="b"))
    other = asyncio.ensure_future(replica.limiter.draw((elsewhere,)))
    store.called.clear()
    await store.called.wait()
    waiting[1].cancel()
    assert store.gate is not None
    store.gate.set()
    await asyncio.gather(first, other, waiting[0], *waiting[2:])
    assert [len(call.orders) for call in store.calls] == [1, 1, 3]
    assert [call.orders[0][0].subject.account for call in store.calls] == ["acme", "b", "acme"]


async def test_a_database_that_does_not_answer_is_not_waited_for_long() -> None:
    store = FakeStore(gate=asyncio.Event())
    world = World(store)
    limiter = Limiter(store, Permits(), patience=0.01, monotonic=lambda: world.now)
    with pytest.raises(LimitsUnavailable):
        await limiter.draw((Cost(REQUESTS, 60, 1),))
    with pytest.raises(LimitsUnavailable):
        await limiter.draw((Cost(REQUESTS, 60, 1),))
    assert len(store.calls) == 1
    store.gate = None
    world.now += 0.25
    await limiter.draw((Cost(REQUESTS, 60, 1),))


async def test_what_is_not_needed_any_more_is_forgotten() -> None:
    store = FakeStore(buckets={REQUESTS: Bucket()})
    await World(store).replica().limiter.forget()
    assert store.buckets == {}


@pytest.mark.integration
async def test_buckets_and_slots_without_use_are_dropped(database: Database) -> None:
    store = RealStore(database)
    replica = World(store).replica()
    await replica.takes(Cost(REQUESTS, 60, 1), Cost(SLOTS, 2, 1))
    assert await store.forget_limits() == 0
    await store.skip(3700)
    await replica.takes(Cost(TOKENS, 60, 1))
    await replica.limiter.forget()
    rows = await database.pool.fetch("select subject from rate_limits")
    assert [row["subject"] for row in rows] == [str(TOKENS)]
    assert await store.slots() == {}


@pytest.mark.integration
async def test_a_replica_that_stops_while_it_has_the_rows_does_not_stop_the_others(
    database: Database,
) -> None:
    store = RealStore(database)
    exchange = Exchange(orders=[(Cost(REQUESTS, 60, 1),)])
    await store.exchange("one", exchange)
    async with database.pool.acquire() as stopped:
        await stopped.execute("begin")
        await stopped.fetch(repository._LOCK, [str(REQUESTS)])
        async with asyncio.timeout(20):
            assert (await store.exchange("other", exchange)).granted == {REQUESTS: 1}
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError)):
            await stopped.execute("commit")


@pytest.mark.integration
async def test_the_bound_holds_in_real_time_while_replicas_come_and_go(database: Database) -> None:
    limit, seconds = 360, 2.5
    admissions: list[float] = []
    cost = Cost(REQUESTS, limit, 1)

    async def flood(replica: Replica, until: float) -> None:
        while time.monotonic() < until:
            if isinstance(await replica.admit(cost), tuple):
                admissions.append(time.monotonic())
            await asyncio.sleep(0)

    began = time.monotonic()
    lives = [(0.0, seconds), (0.0, seconds), (0.0, 1.0), (0.5, seconds), (1.0, 2.0)]
    stores = [LimitsRepository(database) for _ in lives]

    async def live(store: LimitsRepository, start: float, stop: float) -> None:
        permits = Permits()
        limiter = Limiter(store, permits)
        replica = Replica(limiter, permits, time.monotonic)
        born = asyncio.Event()
        asyncio.get_running_loop().call_later(start, born.set)
        await born.wait()
        # It dies without a word: what it has drawn and not used is lost.
        await asyncio.gather(*(flood(replica, began + stop) for _ in range(3)))

    async with asyncio.timeout(60):
        await asyncio.gather(*(live(store, *life) for store, life in zip(stores, lives, strict=True)))
    assert len(admissions) >= limit
    for first, start in enumerate(admissions):
        for count, stop in enumerate(admissions[first:], 1):
            assert count <= limit * (1 + (stop - start + 1) / 60) + 1e-6
