"""What the tests of the credits service share."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from dozen_credits.domain.metering import Price, Usage

MakeUsage = Callable[..., Usage]


@pytest.fixture
def price() -> Price:
    """A price at which an input token costs 2 nano-credits and an output token 5."""
    return Price(
        "price1", "model1", {"input_tokens": 2, "output_tokens": 5}, datetime(2026, 1, 1, tzinfo=UTC)
    )


@pytest.fixture
def make_usage() -> MakeUsage:
    """Makes usage of one input token at `price1`, unless told otherwise."""
    plain = Usage(
        request_id="req_1",
        account_id="acme",
        key_id="key1",
        model="model1",
        deployment_id="deployment1",
        operation="POST /v1/chat/completions",
        price_id="price1",
        quantities={"input_tokens": 1},
        finished_at=datetime(2026, 10, 5, 12, 30, tzinfo=UTC),
        estimated=False,
    )

    def make(request_id: str, **changes: Any) -> Usage:
        return replace(plain, request_id=request_id, **changes)

    return make
