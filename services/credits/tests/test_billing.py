"""The same usage gives the same bill to the last nano-credit, however it is delivered."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dozen_chassis.postgres import Database
from dozen_credits.domain.leases import LeaseWish
from dozen_credits.domain.ledger import Kind
from dozen_credits.domain.metering import Price, Usage
from dozen_credits.domain.postings import Posting
from dozen_credits.errors.metering import PriceNotKnown

from .bank import Bank, MemoryBank, PostgresBank

NOW = datetime.now(UTC).replace(minute=30)
PRICES = [
    Price("price1", "model1", {"input_tokens": 2, "output_tokens": 5}, NOW),
    Price("price2", "model1", {"input_tokens": 3, "cached_input_tokens": 1, "output_tokens": 7}, NOW),
]
GRANTS = {"rich": 10**9, "leased": 10**9, "poor": 5000}
UNITS = ("input_tokens", "cached_input_tokens", "output_tokens", "pages")

usages = st.builds(
    Usage,
    request_id=st.integers(1, 10**6).map("req_{}".format),
    account_id=st.sampled_from([*GRANTS, "nobody"]),
    key_id=st.sampled_from(["key1", "key2"]),
    model=st.sampled_from(["model1", "model2"]),
    deployment_id=st.just("deployment1"),
    operation=st.just("POST /v1/chat/completions"),
    price_id=st.sampled_from([price.id for price in PRICES]),
    quantities=st.dictionaries(st.sampled_from(UNITS), st.integers(0, 300)),
    finished_at=st.integers(0, 24 * 40).map(lambda hours: NOW - timedelta(hours=hours)),
    estimated=st.booleans(),
    lease_id=st.sampled_from(["", "lease"]),
)
workloads = st.lists(usages, min_size=1, max_size=25, unique_by=lambda usage: usage.request_id)


async def bill(bank: Bank, consumers: Sequence[Sequence[Sequence[Usage]]], *, prices_after: int) -> Any:
    """Let consumers take their messages side by side; give all that a bill is made of."""
    await bank.clear()
    for name, amount in GRANTS.items():
        await bank.accounts.open(name, "")
        await bank.postings.grant(Posting(Kind.GRANT, name, name, amount, ""))
    leased = (await bank.leases.acquire(LeaseWish("leased", "gateway1", 2000, 0, "token"))).lease
    assert leased
    leases = {"lease": leased.id, "": ""}

    async def consume(messages: Sequence[Sequence[Usage]]) -> None:
        for message in messages:
            usages = [replace(usage, lease_id=leases[usage.lease_id]) for usage in message]
            while True:
                try:
                    await bank.metering.charge(usages, 1)
                except PriceNotKnown:
                    await asyncio.sleep(0)
                else:
                    break

    async def announce() -> None:
        for _ in range(prices_after):
            await asyncio.sleep(0)
        for price in PRICES:
            await bank.metering.learn_price(price)

    async with asyncio.timeout(60):
        await asyncio.gather(*map(consume, consumers), announce())
    view = await bank.view()
    view.check()
    return {
        "balances": {name: balance.total for name, balance in view.balances.items()},
        "charged": sorted((name, one.key_id, one.nano_credits) for name, one in view.charged),
        "written_off": sum(one.written_off for _, one in view.charged),
        "sums": view.sums,
        "spending": view.spending,
        "invoices": view.invoices,
    }


def spread(dice: Random, workload: Sequence[Usage]) -> list[list[list[Usage]]]:
    """Shuffle usage with some of it repeated, pack it into messages, and deal some of them out twice."""
    stream = [*workload, *dice.choices(workload, k=len(workload) // 2)]
    dice.shuffle(stream)
    messages = []
    while stream:
        size = dice.randint(1, 8)
        messages.append(stream[:size])
        stream = stream[size:]
    consumers: list[list[list[Usage]]] = [[] for _ in range(dice.randint(1, 4))]
    for message in [*messages, *dice.sample(messages, len(messages) // 2)]:
        dice.choice(consumers).append(message)
    return consumers


def compare(bank: Bank, runner: asyncio.Runner, workload: Sequence[Usage], dice: Random) -> None:
    plain = runner.run(bill(MemoryBank(), [[[usage] for usage in workload]], prices_after=0))
    other = runner.run(bill(bank, spread(dice, workload), prices_after=dice.randint(0, 30)))
    assert other == plain


@settings(max_examples=200, deadline=None, database=None)
@given(workload=workloads, dice=st.randoms(use_true_random=False))
def test_in_memory(workload: Sequence[Usage], dice: Random) -> None:
    with asyncio.Runner() as runner:
        compare(MemoryBank(), runner, workload, dice)


@pytest.mark.integration
def test_in_the_database(postgres_dsn: str) -> None:
    with asyncio.Runner() as runner:
        database = runner.run(Database.open(postgres_dsn))

        @settings(max_examples=15, deadline=None, database=None)
        @given(workload=workloads, dice=st.randoms(use_true_random=False))
        def each(workload: Sequence[Usage], dice: Random) -> None:
            compare(PostgresBank(database), runner, workload, dice)

        each()
        runner.run(database.close())
