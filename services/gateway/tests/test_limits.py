"""What requests count against limits, and the permits of replicas: in virtual time, without a database."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dozen_gateway.domain.allotment import Allotment, Answer, Exchange
from dozen_gateway.domain.gcra import Bucket
from dozen_gateway.domain.limits import Cost, Exceeded, Kind, Measure, RateLimits, Subject, costs, worst
from dozen_gateway.domain.permits import Permits
from dozen_gateway.domain.stock import SLOT_SECONDS, write_duration

REQUESTS = Subject("acme", Kind.KEY, "key_1", Measure.REQUESTS)
TOKENS = Subject("acme", Kind.ACCOUNT, "", Measure.TOKENS)
SLOTS = Subject("acme", Kind.MODEL, "smol", Measure.CONCURRENT)
EPOCH = 1_800_000_000_000_000_000


@dataclass
class Shared:
    """What the database has, in virtual milliseconds."""

    time: int = 0
    buckets: dict[Subject, Bucket] = field(default_factory=dict)
    slots: dict[tuple[Subject, str], tuple[int, float]] = field(default_factory=dict)

    @property
    def now(self) -> float:
        return self.time / 1000

    def exchange(self, holder: str, exchange: Exchange) -> Answer:
        subjects = exchange.subjects()
        others: dict[Subject, int] = {}
        for (subject, other), (slots, expires_at) in self.slots.items():
            if other != holder and expires_at > self.now:
                others[subject] = others.get(subject, 0) + slots
        buckets = {
            subject: self.buckets.get(subject, Bucket())
            for subject in subjects
            if subject.measure is not Measure.CONCURRENT
        }
        allotment = Allotment(buckets, others, exchange.held)
        answer = allotment.settle(exchange, EPOCH + self.time * 1_000_000)
        self.buckets |= allotment.buckets
        for subject, slots in allotment.slots.items():
            self.slots[subject, holder] = (slots, self.now + SLOT_SECONDS)
        return answer


@dataclass
class Replica:
    """A replica that asks at once for what it does not have."""

    shared: Shared
    name: str = "one"
    permits: Permits = field(default_factory=Permits)

    def admit(self, *counted: Cost) -> tuple[Cost, ...] | Exceeded:
        verdict = self.permits.weigh(counted, self.shared.now)
        if isinstance(verdict, tuple) and verdict:
            self.exchange(verdict)
            verdict = self.permits.weigh(counted, self.shared.now)
        if isinstance(verdict, Exceeded):
            return verdict
        assert verdict == ()
        return self.permits.take(counted)

    def exchange(self, *orders: tuple[Cost, ...]) -> None:
        now = self.shared.now
        accounts = [order[0].subject.account for order in orders] or self.permits.due()
        exchange = self.permits.prepare(accounts, orders, now)
        self.permits.learn(exchange, self.shared.exchange(self.name, exchange), now, now)

    def tick(self) -> None:
        self.permits.sweep(self.shared.now)
        if self.permits.due():
            self.exchange()


@pytest.fixture
def shared() -> Shared:
    return Shared()


@pytest.fixture
def replica(shared: Shared) -> Replica:
    return Replica(shared)


def refused(verdict: tuple[Cost, ...] | Exceeded) -> Exceeded:
    assert isinstance(verdict, Exceeded)
    return verdict


def taken(verdict: tuple[Cost, ...] | Exceeded) -> tuple[Cost, ...]:
    assert isinstance(verdict, tuple)
    return verdict


def test_a_request_counts_against_its_key_its_account_and_the_account_with_its_model() -> None:
    account = {"": RateLimits(tokens_per_minute=1000), "smol": RateLimits(requests_per_minute=60)}
    assert costs("key_1", RateLimits(60, 500, 3), "acme", account, "smol", 70) == (
        Cost(Subject("acme", Kind.KEY, "key_1", Measure.REQUESTS), 60, 1),
        Cost(Subject("acme", Kind.KEY, "key_1", Measure.TOKENS), 500, 70),
        Cost(Subject("acme", Kind.KEY, "key_1", Measure.CONCURRENT), 3, 1),
        Cost(Subject("acme", Kind.ACCOUNT, "", Measure.TOKENS), 1000, 70),
        Cost(Subject("acme", Kind.MODEL, "smol", Measure.REQUESTS), 60, 1),
    )
    assert costs("key_1", None, "acme", account, "other", 0) == ()
    assert costs("key_1", None, "acme", None, "smol", 70) == ()


def test_subjects_of_different_accounts_are_never_the_same() -> None:
    texts = {
        str(Subject(account, kind, id, measure))
        for account in ("a", "b")
        for kind in Kind
        for id in ("", "x", "x/y")
        for measure in Measure
    }
    assert len(texts) == 2 * 3 * 3 * 3


def test_without_limits_nothing_is_missing(replica: Replica) -> None:
    assert replica.permits.weigh((), 0.0) == ()
    assert replica.permits.take(()) == ()
    assert replica.permits.headers((), 0.0) == {}


def test_low_limits_are_drawn_one_by_one(replica: Replica, shared: Shared) -> None:
    cost = Cost(REQUESTS, 60, 1)
    for _ in range(60):
        taken(replica.admit(cost))
    refusal = refused(replica.admit(cost))
    assert (refusal.cost, refusal.used, refusal.too_large) == (cost, 60, False)
    assert refusal.retry_after == pytest.approx(1.0)
    shared.time += 999
    assert refused(replica.admit(cost)).retry_after == pytest.approx(0.001)
    shared.time += 21
    taken(replica.admit(cost))


def test_of_high_limits_half_a_second_is_drawn_ahead(replica: Replica, shared: Shared) -> None:
    cost = Cost(REQUESTS, 12_000, 1)
    taken(replica.admit(cost))
    for _ in range(99):
        assert replica.permits.weigh([cost], shared.now) == ()
        replica.permits.take([cost])
    assert replica.permits.weigh([cost], shared.now) == (cost,)


def test_what_is_drawn_ahead_is_valid_for_a_second_and_then_goes_back(
    replica: Replica, shared: Shared
) -> None:
    cost = Cost(REQUESTS, 12_000, 1)
    taken(replica.admit(cost))
    shared.time = 999
    assert replica.permits.weigh([cost], shared.now) == ()
    shared.time = 1000
    assert replica.permits.weigh([cost], shared.now) == (cost,)
    replica.tick()
    assert shared.buckets[REQUESTS].tat <= EPOCH + 1_000_000_000
    shared.time = 3000
    replica.tick()
    assert not replica.permits._stocks


def test_what_is_left_of_a_draw_goes_back_with_the_next(replica: Replica, shared: Shared) -> None:
    replica.admit(Cost(TOKENS, 1200, 700))
    replica.admit(Cost(TOKENS, 1200, 5))  # draws ten
    taken(replica.admit(Cost(TOKENS, 1200, 495)))


def test_a_request_that_never_fits_is_told_so_without_asking(replica: Replica) -> None:
    refusal = refused(replica.admit(Cost(TOKENS, 1000, 1001)))
    assert refusal.too_large
    assert not replica.shared.buckets


def test_all_limits_have_room_or_none_is_drawn(replica: Replica, shared: Shared) -> None:
    replica.admit(Cost(REQUESTS, 1, 1))
    both = (Cost(REQUESTS, 1, 1), Cost(TOKENS, 100, 60))
    assert refused(replica.admit(*both)).cost.subject == REQUESTS
    taken(replica.admit(Cost(TOKENS, 100, 100)))


def test_of_several_refusals_the_one_that_lasts_is_given(replica: Replica) -> None:
    replica.admit(Cost(REQUESTS, 60, 60))
    replica.admit(Cost(TOKENS, 100, 100))
    both = (Cost(REQUESTS, 60, 1), Cost(TOKENS, 100, 60))
    assert refused(replica.admit(*both)).cost.subject == TOKENS
    assert worst([]) is None


def test_a_refusal_holds_for_a_while_but_not_for_what_fits(replica: Replica, shared: Shared) -> None:
    replica.admit(Cost(TOKENS, 60_000, 59_990))
    refused(replica.admit(Cost(TOKENS, 60_000, 2000)))
    calls = shared.buckets.copy()
    assert isinstance(replica.permits.weigh([Cost(TOKENS, 60_000, 2000)], shared.now), Exceeded)
    assert shared.buckets == calls
    taken(replica.admit(Cost(TOKENS, 60_000, 5)))
    shared.time += 250
    assert replica.permits.weigh([Cost(TOKENS, 60_000, 2000)], shared.now) == (Cost(TOKENS, 60_000, 2000),)


def test_tokens_that_were_not_used_can_be_drawn_by_another_replica(replica: Replica, shared: Shared) -> None:
    reserved = taken(replica.admit(Cost(TOKENS, 1000, 1000)))
    other = Replica(shared, "other")
    refused(other.admit(Cost(TOKENS, 1000, 800)))
    replica.permits.give_back(reserved, 100)
    shared.time = 250
    replica.tick()
    taken(other.admit(Cost(TOKENS, 1000, 900)))


def test_requests_stay_counted_and_nobody_gets_back_more_than_was_reserved(replica: Replica) -> None:
    both = taken(replica.admit(Cost(REQUESTS, 60, 1), Cost(TOKENS, 1000, 100)))
    assert not replica.permits.give_back(both, 150)
    assert not replica.permits.due()


def test_slots_of_low_limits_go_back_at_once(replica: Replica, shared: Shared) -> None:
    cost, other = Cost(SLOTS, 2, 1), Replica(shared, "other")
    running = [taken(replica.admit(cost)), taken(other.admit(cost))]
    refusal = refused(replica.admit(cost))
    assert (refusal.used, refusal.retry_after) == (2, 1.0)
    assert other.permits.give_back(running[1], 0)
    other.tick()
    shared.time += 1000
    taken(replica.admit(cost))


def test_a_slot_that_was_vacated_here_is_free_here_at_once(replica: Replica) -> None:
    cost = Cost(SLOTS, 1, 1)
    running = taken(replica.admit(cost))
    refused(replica.admit(cost))
    replica.permits.give_back(running, 0)
    taken(replica.admit(cost))
    refused(replica.admit(cost))


def test_of_many_slots_some_are_kept_while_requests_run(replica: Replica, shared: Shared) -> None:
    cost = Cost(SLOTS, 64, 1)
    running = [taken(replica.admit(cost)) for _ in range(10)]
    assert shared.slots[SLOTS, "one"][0] == 12
    for one in running[1:]:
        assert not replica.permits.give_back(one, 0)
    shared.time = 1000
    replica.tick()
    assert shared.slots[SLOTS, "one"][0] == 5
    replica.permits.give_back(running[0], 0)
    shared.time = 2000
    replica.tick()
    assert shared.slots[SLOTS, "one"][0] == 0
    assert not replica.permits._stocks


def test_slots_in_use_are_renewed_and_those_of_the_dead_return(replica: Replica, shared: Shared) -> None:
    cost, other = Cost(SLOTS, 1, 1), Replica(shared, "other")
    taken(replica.admit(cost))
    for _ in range(90):
        shared.time += 1000
        replica.tick()
        refused(other.admit(cost))
    shared.time += 59_000
    taken(other.admit(cost))


def test_a_replica_that_was_cut_off_counts_what_still_runs(replica: Replica, shared: Shared) -> None:
    cost, other = Cost(SLOTS, 2, 1), Replica(shared, "other")
    running = taken(replica.admit(cost))
    shared.time += 61_000
    taken(other.admit(cost))
    taken(other.admit(cost))
    assert replica.permits.weigh([cost], shared.now) == (cost,)
    refused(replica.admit(cost))
    assert shared.slots[SLOTS, "one"][0] == 1
    replica.permits.give_back(running, 0)
    replica.tick()
    assert shared.slots[SLOTS, "one"][0] == 0


def test_what_became_of_slots_in_a_lost_exchange_is_told_by_the_next(
    replica: Replica, shared: Shared
) -> None:
    cost = Cost(SLOTS, 4, 1)
    exchange = replica.permits.prepare(["acme"], [(cost,)], shared.now)
    shared.exchange("one", exchange)  # the answer gets lost
    assert shared.slots[SLOTS, "one"][0] == 1
    replica.permits.lose(exchange)
    replica.tick()
    assert shared.slots[SLOTS, "one"][0] == 0


def test_at_the_end_everything_goes_back(replica: Replica, shared: Shared) -> None:
    for cost in (Cost(REQUESTS, 12_000, 1), Cost(SLOTS, 64, 1)):
        taken(replica.admit(cost))
    replica.permits.surrender()
    replica.exchange()
    assert shared.slots[SLOTS, "one"][0] == 0
    assert shared.buckets[REQUESTS].tat == EPOCH + 5_000_000


def test_headers_are_of_the_limit_that_leaves_the_least(replica: Replica, shared: Shared) -> None:
    counted = (
        Cost(REQUESTS, 60, 1),
        Cost(REQUESTS._replace(kind=Kind.ACCOUNT, id=""), 12_000, 1),
        Cost(TOKENS, 1000, 250),
        Cost(SLOTS, 2, 1),
    )
    assert replica.permits.headers(counted, shared.now) == {}
    taken(replica.admit(*counted))
    assert replica.permits.headers(counted, shared.now) == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-limit-tokens": "1000",
        "x-ratelimit-remaining-tokens": "750",
        "x-ratelimit-reset-tokens": "15s",
    }
    # What is drawn ahead and not used counts as left.
    high = replica.permits.headers(counted[1:2], shared.now)
    assert high["x-ratelimit-remaining-requests"] == "11999"
    assert high["x-ratelimit-reset-requests"] == "5ms"
    shared.time += 60_000
    assert replica.permits.headers(counted[:1], shared.now)["x-ratelimit-remaining-requests"] == "60"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.0001, "1ms"), (0.02, "20ms"), (1, "1s"), (8.64, "8.64s"), (60, "1m0s"), (360, "6m0s")],
)
def test_durations_are_written_as_openai_does(seconds: float, text: str) -> None:
    assert write_duration(seconds) == text


@dataclass
class Admitted:
    """A request that some replica admitted, and what it is known to use."""

    at: int
    tokens: int
    costs: tuple[Cost, ...]
    running: bool = True


@dataclass
class Simulated:
    """A replica whose exchanges take their time."""

    name: str
    permits: Permits = field(default_factory=Permits)
    exchange: Exchange | None = None
    asked_at: float = 0.0
    answer: Answer | None = None
    admitted: list[Admitted] = field(default_factory=list)


class World:
    """Some replicas, what they share, and all that they have ever admitted."""

    def __init__(self, draw: Random, requests: int, tokens: int, slots: int) -> None:
        self.draw = draw
        self.limits = (Cost(REQUESTS, requests, 1), Cost(TOKENS, tokens, 1), Cost(SLOTS, slots, 1))
        self.shared = Shared()
        self.replicas = [Simulated(str(number)) for number in range(6)]
        self.admitted: list[Admitted] = []

    def play(self) -> None:
        """Go on at random."""
        part = self.draw.choice([self.wait, self.flood, self.flood, self.finish, self.finish, self.crash])
        part()

    def wait(self) -> None:
        steps, milliseconds = self.draw.choice([(1, 100), (1, 900), (1, 4000), (5, 6000), (6, 15_000)])
        for _ in range(steps):
            self.shared.time += milliseconds
            for replica in self.replicas if steps > 1 else []:
                replica.permits.sweep(self.shared.now)
                for _ in range(6):  # so that its slots are renewed, even where one exchange gets lost
                    self.go_on(replica)

    def flood(self) -> None:
        largest = self.draw.choice([1, 10, self.limits[1].limit // 20, self.limits[1].limit])
        for replica in self.replicas * self.draw.choice([1, 10]):
            self.shared.time += self.draw.choice([0, 0, 0, 1, 50])
            self.request(replica, self.draw.randint(1, max(1, largest)))
            for other in self.draw.choices(self.replicas, k=3):
                self.go_on(other)

    def finish(self) -> None:
        for replica in self.replicas:
            for one in replica.admitted:
                if one.running and self.draw.random() < 0.8:
                    one.running, one.tokens = False, self.draw.choice([0, one.tokens // 2, one.tokens])
                    replica.permits.give_back(one.costs, one.tokens)
            replica.permits.sweep(self.shared.now)
            self.go_on(replica)

    def crash(self) -> None:
        number = self.draw.randrange(len(self.replicas))
        self.replicas[number] = Simulated(f"{self.replicas[number].name}+")

    def request(self, replica: Simulated, amount: int) -> None:
        requests, tokens, slots = self.limits
        counted = (requests, tokens._replace(amount=amount), slots)
        verdict = replica.permits.weigh(counted, self.shared.now)
        if verdict == ():
            one = Admitted(self.shared.time, amount, replica.permits.take(counted))
            replica.admitted.append(one)
            self.admitted.append(one)
            assert sum(one.running for each in self.replicas for one in each.admitted) <= slots.limit
        elif isinstance(verdict, tuple) and replica.exchange is None:
            self.ask(replica, [verdict])
            if self.draw.random() < 0.7:
                self.go_on(replica)
                self.go_on(replica)

    def ask(self, replica: Simulated, orders: Sequence[tuple[Cost, ...]]) -> None:
        replica.asked_at = self.shared.now
        replica.exchange = replica.permits.prepare(["acme"], orders, self.shared.now)

    def go_on(self, replica: Simulated) -> None:
        """Take the next step of an exchange, or begin one that tells what comes back."""
        if replica.exchange is None:
            if replica.permits.due():
                self.ask(replica, [])
        elif replica.answer is None:
            replica.answer = self.shared.exchange(replica.name, replica.exchange)
        elif self.draw.random() < 0.02:
            replica.permits.lose(replica.exchange)
            replica.exchange = replica.answer = None
        else:
            replica.permits.learn(replica.exchange, replica.answer, replica.asked_at, self.shared.now)
            replica.exchange = replica.answer = None

    def check(self) -> None:
        requests, tokens, _ = (cost.limit for cost in self.limits)
        for first, one in enumerate(self.admitted):
            used = 0
            for counted, other in enumerate(self.admitted[first:], 1):
                used += other.tokens
                span = other.at - one.at
                assert counted * 60_000 <= requests * (61_000 + span)
                assert used * 60_000 <= tokens * (61_000 + span)


@given(
    seed=st.integers(0, 2**32),
    requests=st.sampled_from([10, 60, 600, 10**6]),
    tokens=st.sampled_from([5, 1000, 60_000, 10**6]),
    slots=st.sampled_from([1, 3, 64, 10_000]),
)
@settings(max_examples=200, deadline=None)
def test_no_span_admits_more_than_the_bound_whatever_replicas_do(
    seed: int, requests: int, tokens: int, slots: int
) -> None:
    world = World(Random(seed), requests, tokens, slots)
    for _ in range(40):
        world.play()
    world.check()
