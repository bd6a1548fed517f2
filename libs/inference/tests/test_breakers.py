"""When a breaker opens, when it lets somebody try, and when it closes."""

from dataclasses import dataclass

import pytest

from dozen_inference.breakers import Breaker, State, Terms

TERMS = Terms(
    consecutive_failures=3,
    error_rate=0.5,
    least_requests=10,
    window_seconds=10,
    cool_down_seconds=1,
    most_cool_down_seconds=8,
)


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(TERMS, clock=clock, jitter=lambda: 1.0)


def state(breaker: Breaker) -> State:
    return breaker.state  # by a function, so that mypy expects it to change


def pass_through(breaker: Breaker, failed: bool | None) -> None:
    entered = breaker.enter()
    assert entered
    breaker.leave(entered, failed)


def fail(breaker: Breaker, times: int = 3) -> None:
    for _ in range(times):
        pass_through(breaker, True)


def test_failures_in_a_row_open_it(breaker: Breaker) -> None:
    fail(breaker, 2)
    pass_through(breaker, False)
    fail(breaker, 2)
    assert state(breaker) is State.CLOSED
    fail(breaker, 1)
    assert state(breaker) is State.OPEN
    assert not breaker.enter()
    assert breaker.wait() == 1


def test_what_says_nothing_of_the_deployment_is_not_counted(breaker: Breaker) -> None:
    fail(breaker, 2)
    pass_through(breaker, None)
    assert state(breaker) is State.CLOSED
    fail(breaker, 1)
    assert state(breaker) is State.OPEN


def test_a_rate_of_failures_opens_it_once_there_were_enough_requests(breaker: Breaker) -> None:
    for _ in range(4):
        pass_through(breaker, True)
        pass_through(breaker, False)
    pass_through(breaker, False)
    assert state(breaker) is State.CLOSED
    pass_through(breaker, True)  # the tenth, and the fifth to fail
    assert state(breaker) is State.OPEN


def test_failures_of_long_ago_are_forgotten(breaker: Breaker, clock: Clock) -> None:
    for _ in range(4):
        pass_through(breaker, True)
        pass_through(breaker, False)
    clock.now += 11
    for _ in range(2):
        pass_through(breaker, False)
        pass_through(breaker, True)
    assert state(breaker) is State.CLOSED


def test_one_at_a_time_may_try_when_it_has_cooled_down(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now += 1
    assert state(breaker) is State.HALF_OPEN
    trying = breaker.enter()
    assert trying
    assert not breaker.enter()
    breaker.leave(trying, None)  # whose client has left
    trying = breaker.enter()
    assert trying
    breaker.leave(trying, False)
    assert state(breaker) is State.CLOSED
    assert breaker.enter()
    assert breaker.enter()


def test_it_closes_as_soon_as_an_answer_has_begun(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now += 1
    trying = breaker.enter()
    breaker.begin(trying)
    assert state(breaker) is State.CLOSED
    breaker.leave(trying, True)  # later on it failed: a single failure of a breaker that is closed
    assert state(breaker) is State.CLOSED


def test_each_failed_trial_doubles_the_time_up_to_a_most(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    waits = []
    for _ in range(5):
        waits.append(breaker.wait())
        clock.now += breaker.wait()
        pass_through(breaker, True)
    assert waits == [1, 2, 4, 8, 8]


def test_the_time_stays_long_until_it_was_well_for_a_window(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    clock.now += 1
    pass_through(breaker, False)
    fail(breaker)
    assert breaker.wait() == 2
    clock.now += 2
    pass_through(breaker, False)
    clock.now += 11
    fail(breaker)
    assert breaker.wait() == 1


def test_jitter_keeps_replicas_apart(clock: Clock) -> None:
    waits = []
    for jitter in ((0.0).__abs__, (0.5).__abs__):
        breaker = Breaker(TERMS, clock=clock, jitter=jitter)
        fail(breaker)
        waits.append(breaker.wait())
    assert waits == [0.5, 0.75]


def test_what_began_before_a_change_is_not_counted_after_it(breaker: Breaker, clock: Clock) -> None:
    early = [breaker.enter() for _ in range(10)]
    fail(breaker)
    for entered in early[:5]:
        breaker.leave(entered, True)
    assert breaker.wait() == 1
    breaker.leave(early[5], False)
    assert state(breaker) is State.OPEN
    clock.now += 1
    trying = breaker.enter()
    breaker.leave(early[6], True)
    assert state(breaker) is State.HALF_OPEN
    breaker.leave(trying, False)
    for entered in early[7:]:
        breaker.leave(entered, True)
    assert state(breaker) is State.CLOSED


def test_a_rest_lets_nothing_pass_and_is_no_failure(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 2)
    breaker.rest(20)
    breaker.rest(5)  # no shorter
    assert (state(breaker), breaker.wait()) == (State.OPEN, 20)
    assert not breaker.enter()
    clock.now += 20
    assert (state(breaker), breaker.wait()) == (State.CLOSED, 0)
    pass_through(breaker, False)
    pass_through(breaker, False)


def test_a_rest_outlasts_a_cool_down(breaker: Breaker, clock: Clock) -> None:
    fail(breaker)
    breaker.rest(5)
    clock.now += 1
    assert (state(breaker), breaker.wait()) == (State.OPEN, 4)
    clock.now += 4
    assert state(breaker) is State.HALF_OPEN
