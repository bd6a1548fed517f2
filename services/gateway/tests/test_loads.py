"""How much deployments have to do, from what is heard and what was sent since."""

from hypothesis import given, settings
from hypothesis import strategies as st

from dozen_gateway.domain.loads import FADING, Load, Loads, Observation


def test_requests_count_from_when_they_begin_until_they_end() -> None:
    loads = Loads()
    loads.begin("req_1", "one", 0.0)
    loads.begin("req_2", "one", 0.0)
    assert loads.known["one"].at(0.0) == 2
    loads.end("req_1")
    loads.end("req_1")
    loads.end("req_unknown")
    assert loads.known["one"].at(0.0) == 1


def test_a_request_that_is_decided_on_again_counts_once_and_where_it_goes() -> None:
    loads = Loads()
    loads.begin("req_1", "one", 0.0)
    loads.begin("req_1", "two", 0.0)
    assert [loads.known[name].at(0.0) for name in ("one", "two")] == [0, 1]


def test_an_observation_tells_of_everybody_and_what_we_send_adds_to_it() -> None:
    loads = Loads()
    loads.begin("req_1", "one", 0.0)
    loads.observe("chat-1", {"one": Observation(requests=7, running=8, waiting=3)}, 1.0)
    load = loads.known["one"]
    assert load.at(1.0) == 11
    assert load.is_pressed
    loads.begin("req_2", "one", 1.1)
    assert load.at(1.2) == 12
    loads.end("req_1")
    loads.end("req_2")
    assert load.at(1.3) == 10


def test_where_servers_do_not_tell_their_callers_are_added_up() -> None:
    load = Load()
    load.observe("chat-1", Observation(requests=2, first_byte_seconds=0.1), 1.0)
    load.observe("chat-2", Observation(requests=3, first_byte_seconds=0.4), 1.5)
    assert (load.at(1.5), load.first_byte_seconds) == (5, 0.4)
    load.observe("chat-2", Observation(requests=4, first_byte_seconds=0.3), 2.5)
    assert (load.at(2.5), load.first_byte_seconds) == (6, 0.3)


def test_what_was_heard_is_trusted_for_three_seconds() -> None:
    load = Load()
    load.sent = 1
    load.observe("chat-1", Observation(requests=9, is_open=True), 1.0)
    assert load.at(3.9) == 9
    assert load.at(4.0) == 1
    load.observe("chat-2", Observation(requests=2), 3.9)
    assert (load.at(3.9), load.opened) == (11, 0.5)
    load.observe("chat-2", Observation(requests=2), 4.5)
    assert (load.at(4.5), load.opened) == (2, 0.0)


def test_a_time_that_nothing_confirms_fades() -> None:
    load = Load()
    for second in range(3):
        load.observe("chat-1", Observation(first_byte_seconds=8.0), float(second))
    assert load.first_byte_seconds == 8.0 * FADING * FADING
    load.observe("chat-1", Observation(first_byte_seconds=9.0), 3.0)
    assert load.first_byte_seconds == 9.0


def test_a_cache_that_is_nearly_full_presses() -> None:
    load = Load()
    load.observe("chat-1", Observation(running=3, waiting=0, cache_usage=0.95), 1.0)
    assert load.is_pressed
    load.observe("chat-1", Observation(running=3, waiting=0, cache_usage=0.5), 2.0)
    assert not load.is_pressed


def test_what_nobody_tells_of_any_more_is_forgotten() -> None:
    loads = Loads()
    loads.begin("req_1", "one", 0.0)
    loads.begin("req_2", "two", 50.0)
    loads.observe("chat-1", {"three": Observation(requests=1)}, 99.0)
    loads.forget(100.0, longest_request=60)
    assert set(loads.known) == {"two", "three"}
    loads.forget(200.0, longest_request=60)
    assert not loads.known


EVENTS = st.lists(
    st.tuples(st.sampled_from(["begin", "end", "observe"]), st.integers(0, 5), st.integers(0, 9)), max_size=40
)


@given(EVENTS)
@settings(max_examples=200, deadline=None)
def test_the_estimate_is_never_less_than_what_was_sent(events: list[tuple[str, int, int]]) -> None:
    loads, open_requests = Loads(), set()
    for number, (event, request, amount) in enumerate(events):
        if event == "begin":
            loads.begin(f"req_{request}", "one", number / 10)
            open_requests.add(request)
        elif event == "end":
            loads.end(f"req_{request}")
            open_requests.discard(request)
        else:
            loads.observe("chat-1", {"one": Observation(requests=amount)}, number / 10)
        if load := loads.known.get("one"):
            assert load.sent == len(open_requests)
            assert load.at(number / 10) >= load.sent
