"""Usage in the units of the price list."""

from typing import Any

import msgspec
import pytest

from dozen_chassis.admission import Admission
from dozen_inference.hold import is_priced, most_tokens, most_units
from dozen_inference.usage import Usage, token_quantities, usage_record


@pytest.mark.parametrize(
    ("usage", "quantities"),
    [
        (
            # llama.cpp
            {
                "completion_tokens": 5,
                "prompt_tokens": 32,
                "total_tokens": 37,
                "prompt_tokens_details": {"cached_tokens": 31},
            },
            {"input_tokens": 1, "cached_input_tokens": 31, "output_tokens": 5},
        ),
        (
            # vLLM
            {
                "prompt_tokens": 32,
                "total_tokens": 37,
                "completion_tokens": 5,
                "prompt_tokens_details": None,
            },
            {"input_tokens": 32, "output_tokens": 5},
        ),
        (
            # OpenAI
            {
                "prompt_tokens": 8,
                "completion_tokens": 2,
                "total_tokens": 10,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 1},
            },
            {"input_tokens": 8, "output_tokens": 2},
        ),
        ({"prompt_tokens": 8, "completion_tokens": None}, {"input_tokens": 8, "output_tokens": 0}),
        (
            {"prompt_tokens": 8, "prompt_tokens_details": {"cached_tokens": 9}},
            {"input_tokens": 0, "cached_input_tokens": 8, "output_tokens": 0},
        ),
    ],
)
def test_cached_tokens_are_not_counted_twice(usage: dict[str, Any], quantities: dict[str, int]) -> None:
    assert token_quantities(msgspec.convert(usage, Usage)) == quantities


def admitted(**facts: str) -> Admission:
    return Admission("acme", "key1", "req_1", "POST /v1/embeddings", facts)


def test_a_record_names_the_lease_that_the_request_is_held_in() -> None:
    assert usage_record(admitted(reservation="lease-1"), {}).lease_id == "lease-1"
    assert usage_record(admitted(), {}).lease_id == ""


def test_what_was_not_said_of_a_request_is_without_limit() -> None:
    for held in (admitted(), admitted(price="")):
        assert (is_priced(held), most_tokens(held), most_units(held)) == (False, None, None)
    held = admitted(price="price-1", **{"max-tokens": "12", "max-units": "0"})
    assert (is_priced(held), most_tokens(held), most_units(held)) == (True, 12, 0)
