"""Usage in the units of the price list."""

from typing import Any

import msgspec
import pytest

from dozen_inference.usage import Usage, token_quantities


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
