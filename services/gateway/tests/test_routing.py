"""The order of deployments: who is left out, who comes last, and who shares the rest."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dozen_gateway.domain.loads import Observation
from dozen_gateway.domain.routing import LEAST_LOAD, MOST_TRIED, SHARE, find_deployments
from dozen_gateway.domain.state import Deployment, Model, State

NOW = 5.0


def model(*weights: int, priorities: tuple[int, ...] = ()) -> Model:
    deployments = tuple(
        Deployment(f"d{number}", "chat", f"http://{number}", priorities[number] if priorities else 1, weight)
        for number, weight in enumerate(weights)
    )
    return Model("smol", frozenset({"chat"}), 2048, deployments)


def order(
    model: Model, state: State | None = None, prefix: str = "", draw: Random | None = None
) -> list[str]:
    found = find_deployments(model, "chat", prefix, state or State(), NOW, draw or Random(1))
    return [deployment.id for deployment in found]


def loaded(**observed: Observation) -> State:
    state = State()
    state.loads.observe("chat-1", observed, NOW)
    return state


OPEN = Observation(is_open=True)


def test_those_whose_breakers_are_open_come_last() -> None:
    three = model(1, 1, 1, priorities=(1, 2, 3))
    assert order(three, loaded(d0=OPEN)) == ["d1", "d2", "d0"]
    assert order(three, loaded(d0=OPEN, d1=OPEN, d2=Observation())) == ["d2", "d0", "d1"]
    state = loaded(d0=OPEN)
    state.usable["d0"] = False
    assert order(three, state) == ["d1", "d2"]


def test_nothing_is_tried_where_every_caller_has_given_all_up() -> None:
    two = model(1, 1, priorities=(1, 2))
    state = loaded(d0=OPEN, d1=OPEN)
    assert order(two, state) == []
    state.loads.observe("chat-2", {"d1": Observation()}, NOW)
    assert order(two, state) == ["d0", "d1"]  # somebody has not, and may try
    state.usable["d1"] = False
    assert order(two, state) == []


def test_what_was_heard_long_ago_keeps_nobody_away() -> None:
    state = State()
    state.loads.observe("chat-1", {"d0": OPEN}, NOW - 4)
    assert order(model(1), state) == ["d0"]


@pytest.mark.parametrize("prefix", ["", "abc"])
def test_of_many_only_some_are_named(prefix: str) -> None:
    assert len(order(model(*[1] * 30), prefix=prefix)) == MOST_TRIED


def test_a_prefix_goes_to_the_same_place_from_every_replica() -> None:
    five = model(*[100] * 5)
    for number in range(50):
        first = order(five, prefix=f"prefix {number}", draw=Random(1))
        assert order(five, prefix=f"prefix {number}", draw=Random(2)) == first
        assert len(first) == 5


def test_prefixes_are_shared_out_by_weight() -> None:
    firsts = Counter(order(model(100, 300, 0), prefix=f"prefix {number}")[0] for number in range(4000))
    assert 900 < firsts["d0"] < 1100
    assert firsts["d2"] == 0


def test_only_the_prefixes_of_one_that_is_gone_move() -> None:
    five, four = model(*[100] * 5), model(*[100] * 4)
    for number in range(200):
        before, after = (order(one, prefix=f"prefix {number}")[0] for one in (five, four))
        assert before in (after, "d4")


def test_a_busy_one_is_passed_over_for_the_less_busy_of_the_next_two() -> None:
    five = model(*[100] * 5)
    first, second, third, *_ = order(five, prefix="abc")
    state = loaded(**{first: Observation(requests=LEAST_LOAD - 1)})
    assert order(five, state, "abc")[0] == first
    state = loaded(**{first: Observation(requests=2 * LEAST_LOAD)})
    assert order(five, state, "abc")[0] == second
    state = loaded(
        **{first: Observation(requests=9), second: Observation(requests=3), third: Observation(requests=2)}
    )
    assert order(five, state, "abc")[0] == third


def test_one_where_requests_queue_is_passed_over_while_others_have_room() -> None:
    two = model(100, 100)
    first, second = order(two, prefix="abc")
    waiting, calm = Observation(running=1, waiting=1), Observation(running=2, waiting=0)
    assert order(two, loaded(**{first: waiting, second: calm}), "abc") == [second, first]
    assert order(two, loaded(**{first: waiting, second: waiting}), "abc") == [first, second]


def test_a_slow_one_has_a_smaller_share() -> None:
    three = model(100, 100, 100)
    first, second, third = order(three, prefix="abc")
    busy = {name: Observation(requests=10, first_byte_seconds=0.1) for name in (second, third)}
    assert (
        order(three, loaded(**busy, **{first: Observation(requests=10, first_byte_seconds=0.15)}), "abc")[0]
        == first
    )
    assert (
        order(three, loaded(**busy, **{first: Observation(requests=10, first_byte_seconds=3.0)}), "abc")[0]
        != first
    )


def test_without_a_prefix_the_less_busy_of_two_is_taken() -> None:
    state, draw = loaded(d0=Observation(requests=9), d1=Observation(requests=3)), Random(1)
    assert {order(model(1, 1), state, draw=draw)[0] for _ in range(50)} == {"d1"}
    # A third of the load at a third of the weight is as busy.
    firsts = Counter(order(model(300, 100), state, draw=draw)[0] for _ in range(2000))
    assert 1400 < firsts["d0"] < 1600


def test_without_a_prefix_one_that_is_slow_is_avoided_and_a_small_difference_is_none() -> None:
    draw = Random(1)
    state = loaded(d0=Observation(first_byte_seconds=2.0), d1=Observation(first_byte_seconds=0.1))
    assert {order(model(1, 1), state, draw=draw)[0] for _ in range(50)} == {"d1"}
    state = loaded(d0=Observation(first_byte_seconds=0.15), d1=Observation(first_byte_seconds=0.1))
    assert len({order(model(1, 1), state, draw=draw)[0] for _ in range(50)}) == 2


def test_many_decisions_between_two_observations_do_not_all_go_to_one() -> None:
    four, state, draw = model(*[1] * 4), State(), Random(1)
    state.loads.observe("chat-1", {f"d{number}": Observation(requests=number) for number in range(4)}, NOW)
    for number in range(100):
        state.loads.begin(f"req_{number}", order(four, state, draw=draw)[0], NOW)
    sent = [state.loads.known[f"d{number}"].sent for number in range(4)]
    assert max(sent) - min(sent) < 10


@given(
    weights=st.lists(st.integers(0, 300), min_size=1, max_size=7),
    seen=st.lists(
        st.builds(
            Observation,
            requests=st.integers(0, 40),
            waiting=st.integers(0, 2),
            first_byte_seconds=st.floats(0, 100),
            is_open=st.booleans(),
        ),
        min_size=7,
        max_size=7,
    ),
    usable=st.lists(st.booleans(), min_size=7, max_size=7),
    prefix=st.sampled_from(["", "abc", "xyz"]),
)
@settings(max_examples=300, deadline=None)
def test_all_that_are_usable_are_named_once(
    weights: list[int], seen: list[Observation], usable: list[bool], prefix: str
) -> None:
    state = loaded(**{f"d{number}": one for number, one in enumerate(seen)})
    state.usable = {f"d{number}": one for number, one in enumerate(usable)}
    wanted = [number for number in range(len(weights)) if usable[number]]
    is_hopeless = all(seen[number].is_open for number in wanted)
    found = order(model(*weights), state, prefix)
    assert sorted(found) == ([] if is_hopeless else [f"d{number}" for number in wanted])


@given(
    st.lists(st.integers(0, 40), min_size=2, max_size=7), st.lists(st.integers(0, 3), min_size=7, max_size=7)
)
@settings(max_examples=300, deadline=None)
def test_no_prefix_is_sent_beyond_the_bound(requests: list[int], waiting: list[int]) -> None:
    busy = {f"d{number}": running + waiting[number] for number, running in enumerate(requests)}
    state = loaded(
        **{f"d{number}": Observation(0, one, waiting[number]) for number, one in enumerate(requests)}
    )
    first = order(model(*[100] * len(requests)), state, "abc")[0]
    assert busy[first] < max(LEAST_LOAD, SHARE * (sum(busy.values()) + 1) / len(busy))
