"""What the tests of the credits service share."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from dozen_chassis.postgres import Database
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


@pytest.fixture
def assert_books_agree(database: Database) -> Callable[[], Awaitable[None]]:
    """Checks that entries add up to nothing, and that all that is kept apart from them says the same."""

    async def check() -> None:
        assert await database.pool.fetchval("select coalesce(sum(nano_credits), 0) from entries") == 0
        assert await database.pool.fetch(_DIFFERING) == []

    return check


_DIFFERING = """
    select
        accounts.id, available, leased, in_leases, ledger.*, used, unpaid, refunded, summed, remaining
    from accounts
    left join lateral (
        select
            coalesce(sum(nano_credits) filter (where book = 'available'), 0) as book_available,
            coalesce(sum(nano_credits) filter (where book = 'leased'), 0) as book_leased,
            coalesce(sum(nano_credits) filter (where book = 'revenue'), 0) as book_revenue,
            coalesce(sum(nano_credits) filter (where book = 'written_off'), 0) as book_written_off,
            coalesce(sum(nano_credits) filter (where book = 'issued'), 0) as book_issued
        from entries where account_id = accounts.id
    ) as ledger on true
    left join lateral (
        select coalesce(sum(nano_credits - spent - returned), 0) as in_leases
        from leases where account_id = accounts.id
    ) as open_leases on true
    left join lateral (
        select
            coalesce(sum(nano_credits), 0) as used,
            coalesce(sum(written_off), 0) as unpaid,
            coalesce(sum(usage.refunded), 0) as refunded
        from usage where account_id = accounts.id
    ) as requests on true
    left join lateral (
        select coalesce(sum(nano_credits), 0) as given_back from postings
        where account_id = accounts.id and kind = 'refund'
    ) as refunds on true
    left join lateral (
        select
            coalesce(sum(nano_credits) filter (where step = 'hour'), 0) as summed,
            coalesce(sum(nano_credits) filter (where step = 'day'), 0) as day_summed,
            coalesce(sum(nano_credits) filter (where step = 'month'), 0) as month_summed
        from usage_sums where account_id = accounts.id
    ) as hours on true
    left join lateral (
        select coalesce(sum(remaining), 0) as remaining from postings where account_id = accounts.id
    ) as lots on true
    where available <> book_available
        or leased <> book_leased or leased <> in_leases
        or book_revenue <> used - refunded or used not in (summed, day_summed, month_summed)
        or book_written_off <> -unpaid
        or refunded <> given_back
        or -book_issued <> available + leased + used - unpaid - refunded
        or remaining < available + leased
"""
