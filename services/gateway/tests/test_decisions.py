"""Decisions that are signed for the service that takes the request, and what becomes of their promises."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest
from msgspec import structs

from dozen_chassis import admission
from dozen_chassis.errors import InvalidRequest, NotAdmitted
from dozen_chassis.signing import derive_key
from dozen_gateway.domain.allotment import Answer
from dozen_gateway.domain.bounds import Asked
from dozen_gateway.domain.decision import Facts
from dozen_gateway.domain.holds import Settlement
from dozen_gateway.domain.keys import ApiKey
from dozen_gateway.domain.leases import LeaseAnswer, LeaseWish
from dozen_gateway.domain.limits import Cost, Measure, RateLimits
from dozen_gateway.domain.rejections import Rejection
from dozen_gateway.domain.route_table import ROUTES
from dozen_gateway.domain.state import Account, State
from dozen_gateway.errors.decisions import CreditsUnavailable, LimitsUnavailable
from dozen_gateway.service.decisions import DecisionService, Passage
from dozen_gateway.service.holds import HoldService
from dozen_gateway.service.leases import LeaseService

NOW = 1_000_000.0
MASTER_KEY = b"master"
ADDRESSES = {route.service: f"http://{route.service}" for route in ROUTES}


@dataclass
class FakeCredits:
    """One account's balance, all of which may be leased."""

    available: int = 10**9
    leases: dict[str, int] = field(default_factory=dict)
    is_down: bool = False
    calls: int = 0

    async def acquire(self, wish: LeaseWish) -> LeaseAnswer:
        await asyncio.sleep(0)
        if self.is_down:
            raise CreditsUnavailable()
        self.calls += 1
        added = min(max(wish.needed, wish.wanted), self.available) if wish.needed <= self.available else 0
        self.available -= added
        granted = self.leases[wish.holder] = self.leases.get(wish.holder, 0) + added
        lease_id = wish.holder if granted else ""
        return LeaseAnswer(lease_id, granted, added, 60.0, self.available, self.calls + 10, None)

    async def release(self, lease_id: str, held: int) -> tuple[int, bool]:
        await asyncio.sleep(0)
        self.available += self.leases[lease_id] - held
        self.leases[lease_id] = held
        return held, held == 0


@dataclass
class FakeLimiter:
    """Grants what is asked for, or says that nobody knows; and keeps what comes back."""

    state: State
    is_down: bool = False
    back: list[tuple[Measure, int]] = field(default_factory=list)

    async def draw(self, costs: tuple[Cost, ...]) -> None:
        if self.is_down:
            raise LimitsUnavailable()
        permits, now = self.state.permits, 5.0
        exchange = permits.prepare([costs[0].subject.account], [costs], now)
        permits.learn(
            exchange, Answer(1, [None], {cost.subject: cost.amount for cost in costs}, {}), now, now
        )

    def finish(self, costs: tuple[Cost, ...], used_tokens: int) -> None:
        self.back += [(cost.subject.measure, used_tokens) for cost in costs]


@dataclass
class FakeLookup:
    """Finds a key once it is there."""

    state: State
    there: ApiKey | None = None
    asked: list[str] = field(default_factory=list)

    async def look_up(self, api_key: str) -> bool:
        self.asked.append(api_key)
        if self.there is None:
            return False
        self.state.keys[self.there.id] = self.there
        return True


@dataclass
class Stage:
    """A replica."""

    state: State
    credits: FakeCredits = field(default_factory=FakeCredits)
    hears: bool = True
    clock: float = NOW
    monotonic: float = 5.0

    def __post_init__(self) -> None:
        self.limiter = FakeLimiter(self.state)
        self.lookup = FakeLookup(self.state)
        leases = LeaseService(self.state, self.credits, monotonic=lambda: self.monotonic)
        self.holds = HoldService(
            self.state,
            self.limiter,
            lambda: self.hears,
            longest_request=100,
            clock=lambda: self.clock,
            monotonic=lambda: self.monotonic,
        )
        self.decisions = DecisionService(
            self.state,
            leases,
            self.limiter,
            self.holds,
            self.lookup,
            ADDRESSES,
            MASTER_KEY,
            clock=lambda: self.clock,
            monotonic=lambda: self.monotonic,
        )

    @property
    def free(self) -> int:
        return self.state.purse("acme", "").free(self.monotonic)

    async def pass_time(self, seconds: float) -> None:
        self.monotonic += seconds
        await self.holds.sweep()


@pytest.fixture
def stage(state: State) -> Stage:
    """A replica with a lease that pays for all."""
    return Stage(state)


@pytest.fixture
def bare(state: State) -> Stage:
    """A replica without a lease."""
    state.purses.clear()
    return Stage(state)


@pytest.fixture
def facts(api_key: str) -> Facts:
    return Facts("POST", "/v1/chat/completions", model="smol", asked=Asked(44, max_tokens=1), api_key=api_key)


HELD = 44 + 256
"""The price is one nano-credit for a token of input, and output is free."""


def admitted(decision: Passage | Rejection) -> Passage:
    assert isinstance(decision, Passage)
    return decision


def code(decision: Passage | Rejection) -> str:
    assert isinstance(decision, Rejection)
    return decision.code


async def test_the_receiving_service_verifies_what_was_signed_and_no_other_does(
    stage: Stage, facts: Facts
) -> None:
    passage = admitted(await stage.decisions.decide(facts, "req_1"))
    assert (passage.service, passage.address) == ("chat", "http://upstream")
    operation, chat = "POST /v1/chat/completions", derive_key(MASTER_KEY, "admission:chat")
    verified = admission.verify(passage.headers, operation, chat, NOW + 59)
    assert (verified.account, verified.key, verified.request_id) == ("acme", "key1", "req_1")
    assert verified.facts == {
        "model": "smol", "deployments": "smol-chat", "price": "price-smol",
        "reservation": "lease_1", "max-tokens": "1",
    }  # fmt: skip
    with pytest.raises(NotAdmitted):
        admission.verify(passage.headers, operation, derive_key(MASTER_KEY, "admission:jobs"), NOW)
    with pytest.raises(NotAdmitted, match="expired"):
        admission.verify(passage.headers, operation, chat, NOW + 61)


async def test_a_free_request_goes_to_the_address_of_its_service_without_facts(
    stage: Stage, facts: Facts
) -> None:
    passage = admitted(
        await stage.decisions.decide(structs.replace(facts, method="GET", path="/v1/jobs/job_1"), "req_1")
    )
    assert passage.address == "http://jobs"
    assert passage.admission.operation == "GET /v1/jobs/job_1"
    assert not passage.admission.facts
    assert not stage.state.holds


async def test_an_admission_lives_for_a_day_at_most(stage: Stage, facts: Facts) -> None:
    passage = admitted(await stage.decisions.decide(facts, "req_1", lifetime=10 * 24 * 3600))
    expires_at, _, _ = passage.headers["x-dozen-admission"].partition(".")
    assert int(expires_at) == NOW + 24 * 3600


@pytest.mark.parametrize(("request_id", "lifetime"), [("a b", 60), ("", 60), ("x" * 129, 60), ("req_1", 0)])
async def test_ids_and_lifetimes_that_cannot_be_signed_are_refused(
    stage: Stage, facts: Facts, request_id: str, lifetime: float
) -> None:
    with pytest.raises(InvalidRequest):
        await stage.decisions.decide(facts, request_id, lifetime)


async def test_the_first_half_of_a_decision_needs_no_model(stage: Stage, facts: Facts) -> None:
    assert not isinstance(await stage.decisions.identify(structs.replace(facts, model="")), Rejection)
    assert isinstance(await stage.decisions.identify(structs.replace(facts, api_key="")), Rejection)
    assert not stage.lookup.asked


async def test_a_key_that_is_not_known_is_looked_up(stage: Stage, facts: Facts) -> None:
    key = stage.state.keys.pop("key1")
    assert code(await stage.decisions.decide(facts, "req_1")) == "invalid_api_key"
    assert stage.lookup.asked == [facts.api_key]
    stage.lookup.there = key
    assert not isinstance(await stage.decisions.identify(facts), Rejection)
    del stage.state.keys["key1"]
    admitted(await stage.decisions.decide(facts, "req_1"))


async def test_a_caller_that_was_identified_is_not_looked_for_again(stage: Stage, facts: Facts) -> None:
    caller = await stage.decisions.identify(facts)
    assert not isinstance(caller, Rejection)
    admitted(await stage.decisions.decide(structs.replace(facts, api_key="another"), "req_1", caller=caller))
    stage.state.keys["key1"] = replace(caller.key, revoked_at=NOW)
    assert code(await stage.decisions.decide(facts, "req_2", caller=caller)) == "invalid_api_key"
    stage.state.keys["key1"] = expiring = replace(caller.key, expires_at=NOW + 5)
    caller = caller._replace(key=expiring)
    admitted(await stage.decisions.decide(facts, "req_3", caller=caller))
    stage.clock = NOW + 6
    assert code(await stage.decisions.decide(facts, "req_4", caller=caller)) == "invalid_api_key"


def test_every_service_needs_an_address(stage: Stage) -> None:
    leases = LeaseService(stage.state, stage.credits)
    with pytest.raises(ValueError, match="storage"):
        DecisionService(
            stage.state, leases, stage.limiter, stage.holds, stage.lookup, {"chat": "http://chat"}, MASTER_KEY
        )


async def test_a_lease_is_acquired_for_the_first_request_and_pays_for_more(bare: Stage, facts: Facts) -> None:
    for number in range(5):
        admitted(await bare.decisions.decide(facts, f"req_{number}"))
    assert bare.credits.calls == 1
    assert bare.free == 16 * HELD - 5 * HELD


@pytest.mark.parametrize("parallel", [1, 10])
async def test_a_balance_pays_for_as_many_requests_as_it_is_enough_for(
    bare: Stage, facts: Facts, parallel: int
) -> None:
    bare.credits.available = 7 * HELD + 1
    decided: list[Passage | Rejection] = []
    for start in range(0, 20, parallel):
        decided += await asyncio.gather(
            *(bare.decisions.decide(facts, f"req_{start + number}") for number in range(parallel))
        )
    assert sum(isinstance(one, Passage) for one in decided) == 7
    assert {code(one) for one in decided if isinstance(one, Rejection)} == {"insufficient_quota"}
    assert bare.free >= 0


async def test_without_credits_a_lease_is_used_up_and_then_nothing_is_admitted(
    bare: Stage, facts: Facts
) -> None:
    admitted(await bare.decisions.decide(facts, "req_0"))
    bare.credits.is_down = True
    for number in range(1, 16):
        admitted(await bare.decisions.decide(facts, f"req_{number}"))
    rejection = await bare.decisions.decide(facts, "req_16")
    assert isinstance(rejection, Rejection)
    assert (rejection.http_status, rejection.code) == (503, "credits_unavailable")
    assert rejection.headers == {"retry-after": "1"}


async def test_a_settled_request_holds_only_what_it_cost(stage: Stage, facts: Facts) -> None:
    before = stage.free
    await stage.decisions.decide(facts, "req_1")
    assert stage.free == before - HELD
    stage.holds.settle({"req_1": Settlement("lease_1", 30, 30), "req_2": Settlement("lease_1", 5, 5)})
    assert stage.free == before - 30
    assert not stage.state.holds


async def test_what_another_lease_has_paid_does_not_count(stage: Stage, facts: Facts) -> None:
    before = stage.free
    await stage.decisions.decide(facts, "req_1")
    stage.holds.settle({"req_1": Settlement("lease_2", 30, 30)})
    assert stage.free == before


async def test_a_request_that_was_not_sent_holds_nothing(stage: Stage, facts: Facts) -> None:
    before = stage.free
    await stage.decisions.decide(facts, "req_1")
    stage.decisions.finish("req_1")
    assert stage.free == before - HELD
    stage.decisions.finish("req_1", unsent=True)
    assert stage.free == before


async def test_a_request_loads_its_deployment_until_it_ends(stage: Stage, facts: Facts) -> None:
    await stage.decisions.decide(facts, "req_1")
    await stage.decisions.decide(facts, "req_2")
    load = stage.state.loads.known["smol-chat"]
    assert load.sent == 2
    stage.decisions.finish("req_1")
    assert load.sent == 1
    stage.holds.settle({"req_2": Settlement("lease_1", 30, 30)})  # of whose end nobody has told
    assert load.sent == 0


async def test_a_request_that_is_free_or_sent_another_day_loads_nothing_now(
    stage: Stage, facts: Facts
) -> None:
    await stage.decisions.decide(facts, "req_1", lifetime=3600)
    await stage.decisions.decide(structs.replace(facts, method="GET", path="/v1/jobs/job_1"), "req_2")
    assert not stage.state.loads.known


async def test_a_decision_that_is_asked_for_again_holds_once(stage: Stage, facts: Facts) -> None:
    before = stage.free
    await stage.decisions.decide(facts, "req_1")
    await stage.decisions.decide(facts, "req_1")
    assert stage.free == before - HELD
    assert len(stage.state.holds) == 1


async def test_a_hold_whose_settlement_never_comes_expires(stage: Stage, facts: Facts) -> None:
    before = stage.free
    await stage.decisions.decide(facts, "req_1", lifetime=60)
    await stage.pass_time(159)
    assert len(stage.state.holds) == 1
    await stage.pass_time(2)
    assert not stage.state.holds
    assert stage.state.purse("acme", "").lease is not None
    assert stage.free == before


async def test_no_hold_expires_while_settlements_cannot_arrive(stage: Stage, facts: Facts) -> None:
    await stage.decisions.decide(facts, "req_1", lifetime=60)
    stage.hears = False
    await stage.pass_time(3600)
    stage.hears = True
    await stage.pass_time(159)
    assert len(stage.state.holds) == 1
    await stage.pass_time(2)
    assert not stage.state.holds


async def test_a_clock_that_jumps_changes_no_lease_and_no_hold(stage: Stage, facts: Facts) -> None:
    before = stage.free
    await stage.decisions.decide(facts, "req_1")
    stage.clock += 3600
    await stage.pass_time(1)
    assert stage.free == before - HELD
    stage.clock -= 7200
    await stage.pass_time(1)
    assert stage.free == before - HELD


def _limit(state: State, limits: RateLimits) -> None:
    state.account_limits["acme"] = {"": limits}


async def test_without_its_database_a_limited_request_is_refused(stage: Stage, facts: Facts) -> None:
    _limit(stage.state, RateLimits(requests_per_minute=5))
    stage.limiter.is_down = True
    assert code(await stage.decisions.decide(facts, "req_1")) == "limits_unavailable"
    assert not stage.state.holds


@pytest.mark.parametrize("has_ended", [True, False])
async def test_what_a_request_counts_against_limits_comes_back_once(
    stage: Stage, facts: Facts, has_ended: bool
) -> None:
    _limit(stage.state, RateLimits(requests_per_minute=500, tokens_per_minute=5000, concurrent_requests=50))
    admitted(await stage.decisions.decide(facts, "req_1"))
    if has_ended:
        stage.decisions.finish("req_1")
        assert stage.limiter.back == [(Measure.CONCURRENT, 0)]
    stage.holds.settle({"req_1": Settlement("lease_1", 30, 30)})
    assert stage.limiter.back == [(Measure.CONCURRENT, 0), (Measure.TOKENS, 30)]


async def test_a_request_that_never_fits_is_not_to_be_tried_again(stage: Stage, facts: Facts) -> None:
    _limit(stage.state, RateLimits(tokens_per_minute=HELD))
    rejection = await stage.decisions.decide(facts, "req_1")
    assert isinstance(rejection, Rejection)
    assert (rejection.http_status, rejection.code, rejection.type) == (429, "rate_limit_exceeded", "tokens")
    assert rejection.headers["x-should-retry"] == "false"
    assert f"it counts up to {HELD + 1}" in rejection.message


async def test_an_account_without_credits_is_asked_about_once_a_second(bare: Stage, facts: Facts) -> None:
    bare.state.accounts["acme"] = Account(0, 0)
    bare.credits.available = 0
    assert code(await bare.decisions.decide(facts, "req_1")) == "insufficient_quota"
    assert bare.credits.calls == 1
    assert code(await bare.decisions.decide(facts, "req_2")) == "insufficient_quota"
    assert bare.credits.calls == 1
