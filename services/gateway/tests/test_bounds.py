"""The most that a request can use is never below what it uses, nor beyond what pays for it."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from dozen_gateway.domain.bounds import (
    ANSWER_TOKENS,
    LEAST_ANSWER_TOKENS,
    MEDIA_TOKENS,
    SHARE,
    TEMPLATE_TOKENS,
    Asked,
    Bound,
    bound_tokens,
    bound_units,
)

PRICE = {"input_tokens": 150, "cached_input_tokens": 75, "output_tokens": 600}


def chat(asked: Asked, context: int = 2048) -> Bound:
    return bound_tokens(asked, context, PRICE, template=True, answers=True)


@given(st.lists(st.text(), min_size=1))
@settings(max_examples=200, deadline=None)
def test_no_text_has_more_bytes_than_the_json_around_it(texts: list[str]) -> None:
    # A token of a byte-level vocabulary is at least one byte.
    body = json.dumps({"messages": [{"role": "user", "content": text} for text in texts]}).encode()
    assert chat(Asked(len(body)), context=0).input_tokens >= sum(
        len(text.encode("utf-8", "surrogatepass")) for text in texts
    )


def test_a_prompt_is_no_longer_than_the_context() -> None:
    assert chat(Asked(100)).input_tokens == 100 + TEMPLATE_TOKENS
    assert chat(Asked(10_000)).input_tokens == 2048
    three = bound_tokens(Asked(10_000, choices=3), 2048, PRICE, template=False, answers=True)
    assert three.input_tokens == 3 * 2048


def test_a_picture_may_fill_the_context() -> None:
    assert chat(Asked(100, media_parts=1)).input_tokens == 2048
    unknown = chat(Asked(100, media_parts=2), context=0)
    assert unknown.input_tokens == 100 + TEMPLATE_TOKENS + 2 * MEDIA_TOKENS


def test_an_answer_is_bounded_by_its_client_and_by_the_context() -> None:
    assert chat(Asked(10, max_tokens=7)).answer_tokens == 7
    assert chat(Asked(10, max_tokens=10**9)).answer_tokens == 2048
    assert chat(Asked(10)).answer_tokens == 2048
    assert chat(Asked(10), context=0).answer_tokens == ANSWER_TOKENS
    assert chat(Asked(10, max_tokens=50_000), context=0).answer_tokens == 50_000
    assert chat(Asked(10, max_tokens=-5)).answer_tokens == 1


def test_every_choice_costs() -> None:
    one, four = chat(Asked(10, max_tokens=7)), chat(Asked(10, choices=4, max_tokens=7))
    assert four.cost(7) - one.cost(7) == 3 * 7 * 600
    assert four.tokens(7) - one.tokens(7) == 3 * 7


def test_the_dearer_kind_of_input_counts() -> None:
    dear = bound_tokens(
        Asked(10), 0, {"cached_input_tokens": 9, "input_tokens": 2}, template=False, answers=False
    )
    assert dear.cost(0) == 90


def test_media_are_bounded_by_their_own_units() -> None:
    assert bound_units(Asked(5000, choices=3), "images", {"images": 7}).fixed_nano_credits == 21
    recording = bound_units(Asked(5000), "audio_milliseconds", {"audio_milliseconds": 2})
    assert (recording.units, recording.fixed_nano_credits) == (10_000, 20_000)
    assert bound_units(Asked(5000), "characters", {"characters": 3}).fixed_nano_credits == 15_000


@given(
    st.integers(0, 5000),
    st.integers(1, 5),
    st.none() | st.integers(1, 4000),
    st.integers(0, 10**8),
)
@settings(max_examples=300, deadline=None)
def test_what_is_promised_is_paid_for(size: int, choices: int, limit: int | None, affordable: int) -> None:
    bound = chat(Asked(size, choices, limit))
    tokens = bound.payable_tokens(affordable)
    if tokens is None:
        assert bound.cost(1) > affordable
        return
    assert 1 <= tokens <= bound.answer_tokens
    assert bound.cost(tokens) <= affordable
    if limit is not None:
        # As much as was asked for, or all that the balance pays for.
        assert tokens == bound.answer_tokens or bound.cost(tokens + 1) > affordable
    else:
        assert tokens <= LEAST_ANSWER_TOKENS or bound.cost(tokens) <= affordable // SHARE


def test_what_costs_nothing_needs_no_balance() -> None:
    free = bound_tokens(Asked(10), 2048, {}, template=True, answers=True)
    assert free.cost(2048) == 0
    assert free.payable_tokens(0) == 2048


def test_what_an_answer_from_the_cache_costs_is_held_too() -> None:
    prices = {"input_tokens": 1, "output_tokens": 1, "cache_hits": 5_000}
    bound = bound_tokens(Asked(10, max_tokens=1), 1024, prices, template=False, answers=True)
    assert bound.fixed_nano_credits == 5_000
