"""Leases as one replica keeps them, against credits that may refuse, be away, or lose an answer."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest

from dozen_gateway.domain.holds import Hold, Settlement
from dozen_gateway.domain.keys import ApiKey, Budget, BudgetPeriod
from dozen_gateway.domain.leases import LeaseAnswer, LeaseWish, Purse
from dozen_gateway.domain.state import Account, Snapshot, State
from dozen_gateway.errors.decisions import CreditsUnavailable
from dozen_gateway.service.leases import ADVANCE, IDLE_SECONDS, REFUSAL_SECONDS, LeaseService
from dozen_testing.conditions import eventually

LIFETIME = 60.0


@dataclass
class Entry:
    """A lease in the books of credits."""

    granted: int = 0
    spent: int = 0
    returned: int = 0
    closed: bool = False

    @property
    def left(self) -> int:
        return self.granted - self.spent - self.returned


@dataclass
class FakeCredits:
    """The account `acme` and its leases, by the rules of credits."""

    available: int
    share: int = 8
    rest: int | None = None
    """What a budget leaves."""
    is_down: bool = False
    loses_answers: bool = False
    """Does what it is asked, but its answers do not arrive."""
    releases: list[tuple[str, int]] = field(default_factory=list)
    leases: dict[str, Entry] = field(default_factory=dict)
    open: dict[tuple[str, str], str] = field(default_factory=dict)
    wishes: list[LeaseWish] = field(default_factory=list)
    version: int = 1

    async def acquire(self, wish: LeaseWish) -> LeaseAnswer:
        await asyncio.sleep(0)
        if self.is_down:
            raise CreditsUnavailable()
        self.wishes.append(wish)
        most = self.available if wish.budget is None or self.rest is None else min(self.available, self.rest)
        added = 0
        if 0 < wish.needed <= most:
            added = max(wish.needed, min(wish.wanted, most // self.share))
        holder = (wish.holder, wish.key)
        if added:
            lease_id = self.open.setdefault(holder, f"lease_{len(self.leases)}")
            self.leases.setdefault(lease_id, Entry()).granted += added
            self.available -= added
            self.version += 1
            if self.rest is not None:
                self.rest -= added
        if self.loses_answers:
            raise CreditsUnavailable()
        lease_id = self.open.get(holder, "")
        entry = self.leases[lease_id] if lease_id else Entry()
        return LeaseAnswer(
            lease_id, entry.granted - entry.returned, added, LIFETIME, self.available, self.version, self.rest
        )

    async def release(self, lease_id: str, held: int) -> tuple[int, bool]:
        await asyncio.sleep(0)
        if self.is_down:
            raise CreditsUnavailable()
        self.releases.append((lease_id, held))
        entry = self.leases[lease_id]
        amount = max(0, entry.left - held)
        entry.returned += amount
        self.available += amount
        self.version += 1
        if entry.left == 0:
            entry.closed = True
            self.open = {holder: one for holder, one in self.open.items() if one != lease_id}
        if self.loses_answers:
            raise CreditsUnavailable()
        return entry.granted - entry.returned, entry.closed


class Clock:
    """Monotonic seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Stage:
    """A replica."""

    credits: FakeCredits
    clock: Clock = field(default_factory=Clock)
    state: State = field(default_factory=State)

    def __post_init__(self) -> None:
        self.leases = LeaseService(self.state, self.credits, monotonic=self.clock)

    @property
    def purse(self) -> Purse:
        return self.state.purse("acme", "")

    @property
    def free(self) -> int:
        return self.purse.free(self.clock.now)

    async def supply(self, amount: int, key: str = "") -> None:
        async with self.leases.turn("acme", key) as purse:
            await self.leases.supply(purse, amount)

    def hold(self, request_id: str, amount: int) -> None:
        self.purse.used_at = self.clock.now
        assert self.free >= amount
        self.state.holds.open(Hold(request_id, self.purse.lease, amount, (), 0.0, 1e9))

    def settle(self, request_id: str, cost: int) -> None:
        hold = self.state.holds.get(request_id)
        assert hold is not None
        assert hold.lease is not None
        self.credits.leases[hold.lease.id].spent += cost
        self.state.holds.close(request_id, Settlement(hold.lease.id, cost, 0))


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage(FakeCredits(available=100_000))
    async with stage.leases:
        yield stage


async def test_a_lease_is_for_more_than_one_request(stage: Stage) -> None:
    await stage.supply(100)
    assert stage.free == 100 * ADVANCE
    assert stage.state.accounts["acme"] == Account(100_000 - 100 * ADVANCE, 2)
    stage.hold("req_1", 100)
    stage.settle("req_1", 30)
    assert stage.free == 100 * ADVANCE - 30


async def test_a_lease_that_lasts_less_than_a_second_is_followed_by_twice_as_much(stage: Stage) -> None:
    await stage.supply(100)
    await stage.supply(100 * ADVANCE + 1)
    assert [wish.wanted for wish in stage.credits.wishes][:1] == [100 * ADVANCE]
    assert stage.purse.wanted == ADVANCE * (100 * ADVANCE + 1)
    wanted = stage.purse.wanted
    await stage.supply(stage.free + 1)
    assert stage.purse.wanted >= 2 * wanted


async def test_it_is_topped_up_before_it_is_used_up(stage: Stage) -> None:
    await stage.supply(100)
    stage.leases.top_up(stage.purse)
    assert len(stage.credits.wishes) == 1
    stage.hold("req_1", 100 * ADVANCE // 2 + 1)
    stage.leases.top_up(stage.purse)
    stage.leases.top_up(stage.purse)

    async def topped_up() -> bool:
        return stage.free == 100 * ADVANCE

    await eventually(topped_up)
    assert len(stage.credits.wishes) == 2


async def test_what_is_refused_is_not_asked_for_again_at_once() -> None:
    stage = Stage(FakeCredits(available=99))
    await stage.supply(100)
    assert stage.free == 0
    assert stage.purse.lease is None
    assert stage.purse.refused_until == stage.clock.now + REFUSAL_SECONDS


async def test_halves_at_two_replicas_come_together() -> None:
    credits = FakeCredits(available=150, share=100)
    first, second = Stage(credits), Stage(credits)
    await first.supply(75)
    await second.supply(75)
    assert (first.free, second.free, credits.available) == (75, 75, 0)
    await first.supply(100)
    assert (first.free, credits.available) == (0, 75)  # it has returned its half
    await second.supply(100)
    assert second.free == 100


async def test_what_is_held_is_not_returned(stage: Stage) -> None:
    await stage.supply(100)
    stage.hold("req_1", 60)
    stage.credits.available = 0
    await stage.supply(100 * ADVANCE)
    (entry,) = stage.credits.leases.values()
    assert entry.left >= 60
    assert not entry.closed


async def test_an_idle_lease_is_returned_and_a_used_one_renewed(stage: Stage) -> None:
    await stage.supply(100)
    stage.hold("req_1", 100)
    stage.clock.now += LIFETIME / 2
    await stage.leases.sweep()
    assert stage.credits.wishes[-1].needed == 0
    assert stage.purse.lease is not None
    assert stage.purse.lease.valid_until == stage.clock.now + LIFETIME
    stage.settle("req_1", 100)
    stage.clock.now += IDLE_SECONDS
    await stage.leases.sweep()
    assert stage.purse.lease is None
    assert stage.credits.available == 100_000 - 100


async def test_nothing_is_promised_from_an_expired_lease(stage: Stage) -> None:
    await stage.supply(100)
    stage.clock.now += LIFETIME
    assert stage.free == 0
    await stage.supply(100)
    assert stage.free >= 100


async def test_without_credits_what_is_leased_is_still_promised(stage: Stage) -> None:
    await stage.supply(100)
    stage.credits.is_down = True
    assert stage.free == 100 * ADVANCE
    with pytest.raises(CreditsUnavailable):
        await stage.supply(stage.free + 1)
    await stage.leases.sweep()
    assert stage.free == 100 * ADVANCE


async def test_an_answer_that_is_lost_adds_nothing_that_is_not_counted(stage: Stage) -> None:
    stage.credits.loses_answers = True
    with pytest.raises(CreditsUnavailable):
        await stage.supply(100)
    assert stage.free == 0
    stage.credits.loses_answers = False
    await stage.supply(100)
    (entry,) = stage.credits.leases.values()
    assert stage.free == entry.granted


async def test_a_lease_of_which_it_is_not_known_what_is_left_is_given_up(stage: Stage) -> None:
    await stage.supply(100)
    stage.hold("req_1", 60)
    stage.credits.available, stage.credits.loses_answers = 0, True
    async with stage.leases.turn("acme", "") as purse:
        with pytest.raises(CreditsUnavailable):
            await stage.leases._give_back(purse)
    assert stage.free == 0
    stage.credits.loses_answers = False
    await stage.supply(100)
    first, second = stage.credits.leases.values()
    assert first.left == 60
    assert stage.free == second.granted


async def test_a_call_that_returns_credits_takes_none_when_it_is_heard_once_more(stage: Stage) -> None:
    await stage.supply(100)
    stage.hold("req_1", 60)
    stage.credits.available = 0
    await stage.supply(100 * ADVANCE)
    again = stage.credits.releases[-1]
    await stage.supply(100)
    stage.hold("req_2", 100)
    await stage.credits.release(*again)
    first, second = stage.credits.leases.values()
    assert (first.left, second.left) == (60, second.granted)


async def test_what_is_left_of_a_returned_lease_follows_as_its_requests_are_settled(stage: Stage) -> None:
    await stage.supply(100)
    stage.hold("req_1", 60)
    stage.hold("req_2", 40)
    stage.credits.available, stage.credits.loses_answers = 0, True
    async with stage.leases.turn("acme", "") as purse:
        with pytest.raises(CreditsUnavailable):
            await stage.leases._give_back(purse)
    stage.credits.loses_answers = False
    await stage.leases.sweep()
    (entry,) = stage.credits.leases.values()
    assert entry.left == 100
    stage.settle("req_1", 10)
    await stage.leases.sweep()
    assert entry.left == 40
    stage.clock.now += LIFETIME / 2
    await stage.leases.sweep()
    assert stage.credits.wishes[-1].needed == 0
    assert not entry.closed
    stage.settle("req_2", 40)
    await stage.leases.sweep()
    assert entry.closed
    assert stage.purse.returned == []


async def test_a_request_that_is_decided_on_twice_may_go_with_either_answer(stage: Stage) -> None:
    await stage.supply(100)
    first = stage.purse.lease
    assert first is not None
    stage.hold("req_1", 60)
    stage.hold("req_1", 40)
    assert first.held == 60
    stage.credits.available = 0
    await stage.supply(100 * ADVANCE)
    await stage.supply(100)
    second = stage.purse.lease
    assert second is not None
    stage.hold("req_1", 50)
    assert (first.held, second.held) == (60, 50)
    stage.credits.leases[first.id].spent += 60
    stage.state.holds.close("req_1", Settlement(first.id, 60, 0))
    assert (first.held, first.settled, second.held, second.settled) == (0, 60, 0, 0)


async def test_a_key_that_loses_its_budget_does_not_get_the_lease_of_its_account(stage: Stage) -> None:
    key = ApiKey("key_1", "acme", "laptop", b"", 0.0, budget=Budget(500, BudgetPeriod.MONTH))
    stage.state.learn(Snapshot(keys={key.id: key}))
    await stage.supply(100)
    await stage.supply(100, key.id)
    stage.state.learn(Snapshot(keys={key.id: replace(key, budget=None, version=2)}))
    await stage.supply(100 * ADVANCE * 2, key.id)
    assert len({wish.holder for wish in stage.credits.wishes}) == 2


async def test_a_key_with_a_budget_has_a_lease_of_its_own(stage: Stage) -> None:
    budget = Budget(500, BudgetPeriod.MONTH)
    key = ApiKey("key_1", "acme", "laptop", b"", 0.0, budget=budget)
    stage.state.learn(Snapshot(keys={key.id: key}))
    stage.credits.rest = 500
    await stage.supply(400, key.id)
    (wish,) = stage.credits.wishes
    assert (wish.key, wish.budget) == (key.id, budget)
    purse = stage.state.purse("acme", key.id)
    assert (purse.free(stage.clock.now), purse.rest) == (400, 100)
    assert stage.free == 0


async def test_a_replica_that_stops_returns_what_is_not_held() -> None:
    stage = Stage(FakeCredits(available=100_000))
    async with stage.leases:
        await stage.supply(100)
        stage.hold("req_1", 60)
    assert stage.credits.available == 100_000 - 60
