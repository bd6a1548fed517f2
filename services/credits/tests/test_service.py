"""Use cases of the credits service, on a store in memory and on the real one."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.message import Message

from dozen.credits.v1.credits_events_pb2 import (
    AccountOpened,
    BalanceExhausted,
    BalanceLow,
    CreditsGranted,
    UsageRated,
)
from dozen_chassis.postgres import Database
from dozen_credits.domain.accounts import Balance
from dozen_credits.domain.ledger import Book, Kind, Transfer
from dozen_credits.domain.metering import Price, Usage
from dozen_credits.domain.postings import Posting
from dozen_credits.errors.accounts import AccountNotFound, InvalidAccount
from dozen_credits.errors.metering import InvalidPrice, PriceNotKnown
from dozen_credits.service.accounts import Accounts
from dozen_credits.service.metering import WRITTEN_OFF, Metering

from .bank import PRICE_ATTEMPTS, MemoryBank, PostgresBank
from .memory import MemoryLedger

MakeUsage = Callable[..., Usage]
NOW = datetime(2026, 10, 5, 12, 30, tzinfo=UTC)
EVENTS: dict[str, type[Message]] = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (AccountOpened, BalanceExhausted, BalanceLow, CreditsGranted, UsageRated)
}


@dataclass
class Stage:
    """The use cases, and what they left behind."""

    accounts: Accounts
    metering: Metering
    give: Callable[[str, int], Awaitable[object]]
    events: Callable[[], Awaitable[list[Message]]]
    set_aside: Callable[[], Awaitable[dict[str, str]]]

    async def balance(self, account_id: str = "acme") -> int:
        return (await self.accounts.get(account_id)).balance.available


def in_memory() -> Stage:
    bank = MemoryBank()
    tables = bank.tables

    async def give(account_id: str, amount: int) -> None:
        transfer = Transfer(account_id, Kind.GRANT, Book.ISSUED, Book.AVAILABLE, amount, "grant_1")
        await MemoryLedger(tables).post([transfer])

    async def events() -> list[Message]:
        return tables.events

    async def set_aside() -> dict[str, str]:
        return {one.usage.request_id: one.reason.value for one in tables.aside}

    return Stage(bank.accounts, bank.metering, give, events, set_aside)


def on_postgres(database: Database) -> Stage:
    bank = PostgresBank(database)

    async def give(account_id: str, amount: int) -> None:
        await bank.postings.grant(Posting(Kind.GRANT, "first", account_id, amount, ""))

    async def events() -> list[Message]:
        rows = await database.pool.fetch("select subject, payload from outbox order by id")
        found = [EVENTS[row["subject"]].FromString(row["payload"]) for row in rows]
        return [event for event in found if not isinstance(event, CreditsGranted)]

    async def set_aside() -> dict[str, str]:
        rows = await database.pool.fetch("select request_id, reason from unrated_usage")
        return {row["request_id"]: row["reason"] for row in rows}

    return Stage(bank.accounts, bank.metering, give, events, set_aside)


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def stage(request: pytest.FixtureRequest) -> Stage:
    if request.param == "memory":
        return in_memory()
    return on_postgres(request.getfixturevalue("database"))


async def funded(stage: Stage, price: Price, nano_credits: int = 1000) -> None:
    await stage.metering.learn_price(price)
    await stage.accounts.open("acme", "Acme")
    await stage.give("acme", nano_credits)


async def test_opening_an_account_again_changes_and_tells_nothing(stage: Stage) -> None:
    opened = await stage.accounts.open("acme", "Acme")
    assert (opened.id, opened.name, opened.balance) == ("acme", "Acme", Balance("acme", 0, 0, 1))
    assert await stage.accounts.open("acme", "Another name") == opened
    (event,) = await stage.events()
    assert isinstance(event, AccountOpened)
    assert (event.account.id, event.account.name, event.balance.version) == ("acme", "Acme", 1)


@pytest.mark.parametrize(
    ("account_id", "name"), [("Acme", ""), ("", ""), ("acme", "n" * 201), ("acme", "\0")]
)
async def test_an_account_outside_the_limits_is_refused(stage: Stage, account_id: str, name: str) -> None:
    with pytest.raises(InvalidAccount):
        await stage.accounts.open(account_id, name)
    assert await stage.events() == []


@pytest.mark.parametrize("account_id", ["nobody", "No account", "\0"])
async def test_an_unknown_account_is_not_found(stage: Stage, account_id: str) -> None:
    with pytest.raises(AccountNotFound):
        await stage.accounts.get(account_id)


async def test_all_accounts_are_announced_with_their_balances(stage: Stage) -> None:
    names = [f"account{number}" for number in range(203)]
    for name in names:
        await stage.accounts.open(name, "")
    await stage.give("account7", 7)
    opened = len(await stage.events())
    await stage.accounts.announce()
    announced = (await stage.events())[opened:]
    assert sorted(event.account.id for event in announced if isinstance(event, AccountOpened)) == sorted(
        names
    )
    balances = [event.balance for event in announced if isinstance(event, AccountOpened)]
    assert {balance.account_id: balance.version for balance in balances}["account7"] == 2


async def test_a_request_is_charged_once_however_often_it_is_reported(
    stage: Stage, price: Price, make_usage: MakeUsage
) -> None:
    await funded(stage, price)
    first, second = make_usage("req_1"), make_usage("req_2", quantities={"output_tokens": 3})
    dearer = replace(first, quantities={"input_tokens": 500})
    await stage.metering.charge([first, second, first, dearer], 1)
    await stage.metering.charge([second, first], 1)
    await stage.metering.charge([dearer, make_usage("req_3")], 1)
    assert await stage.balance() == 1000 - 2 - 15 - 2
    rated = [event for event in await stage.events() if isinstance(event, UsageRated)]
    charged = [(charge.usage.request_id, charge.nano_credits) for event in rated for charge in event.charges]
    assert sorted(charged) == [("req_1", 2), ("req_2", 15), ("req_3", 2)]
    balances = [(balance.available_nano_credits, balance.version) for e in rated for balance in e.balances]
    assert balances == [(983, 3), (981, 4)]
    assert rated[0].charges[0].usage.finished_at.ToDatetime(UTC) == NOW


async def test_what_nobody_can_pay_is_written_off_and_no_balance_falls_below_zero(
    stage: Stage, price: Price, make_usage: MakeUsage
) -> None:
    await funded(stage, price, nano_credits=10**15)
    await stage.metering.charge([make_usage("req_1", quantities={"input_tokens": 10**15 // 2 - 1})], 1)
    assert await stage.balance() == 2
    await stage.metering.charge([make_usage("req_2")], 1)
    assert await stage.balance() == 0
    before = WRITTEN_OFF._value.get()
    await stage.metering.charge([make_usage("req_3", quantities={"output_tokens": 1})], 1)
    assert await stage.balance() == 0
    assert WRITTEN_OFF._value.get() == before + 5
    *_, rated = await stage.events()
    assert isinstance(rated, UsageRated)
    assert [(one.nano_credits, one.written_off_nano_credits) for one in rated.charges] == [(5, 5)]
    assert [(one.available_nano_credits, one.version) for one in rated.balances] == [(0, 4)]


async def test_a_low_and_an_exhausted_balance_are_told_once(
    stage: Stage, price: Price, make_usage: MakeUsage
) -> None:
    await funded(stage, price)
    told: list[tuple[type[Message], int]] = []
    for number, tokens in enumerate(
        (450, 1, 1, 40, 8, 9)
    ):  # 100, 98, 96, 16, 0 are left; then nothing can be paid
        seen = len(await stage.events())
        await stage.metering.charge([make_usage(f"req_{number}", quantities={"input_tokens": tokens})], 1)
        told += [
            (type(event), number)
            for event in (await stage.events())[seen:]
            if isinstance(event, BalanceLow | BalanceExhausted)
        ]
    assert told == [(BalanceLow, 1), (BalanceExhausted, 4)]


async def test_a_request_that_used_nothing_is_told_and_not_kept(
    stage: Stage, price: Price, make_usage: MakeUsage
) -> None:
    await funded(stage, price)
    nothing = [
        make_usage("req_1", quantities={}),
        make_usage("req_2", quantities={"input_tokens": 0}, price_id="unknown", lease_id="lease_1"),
    ]
    for attempt in (1, 2):
        await stage.metering.charge(nothing, attempt)
    *_, rated = await stage.events()
    assert isinstance(rated, UsageRated)
    charged = {one.usage.request_id: (one.nano_credits, one.usage.lease_id) for one in rated.charges}
    assert charged == {"req_1": (0, ""), "req_2": (0, "lease_1")}
    assert [balance.version for balance in rated.balances] == [2]


async def test_a_request_that_costs_nothing_is_rated_too(
    stage: Stage, price: Price, make_usage: MakeUsage
) -> None:
    await funded(stage, price)
    await stage.metering.charge([make_usage("req_1", quantities={"images": 4})], 1)
    assert await stage.balance() == 1000
    *_, rated = await stage.events()
    assert isinstance(rated, UsageRated)
    assert [charge.nano_credits for charge in rated.charges] == [0]


async def test_usage_waits_for_its_price_and_holds_up_nothing_else(
    stage: Stage, price: Price, make_usage: MakeUsage
) -> None:
    await funded(stage, price)
    message = [make_usage("req_1"), make_usage("req_2", price_id="price2")]
    for attempt in (1, 2):
        with pytest.raises(PriceNotKnown, match="1 of 2 requests wait for prices"):
            await stage.metering.charge(message, attempt)
        assert await stage.balance() == 998
    await stage.metering.learn_price(replace(price, id="price2", nano_credits={"input_tokens": 100}))
    await stage.metering.charge(message, 3)
    assert await stage.balance() == 898


async def test_a_price_that_never_comes_is_not_waited_for_for_ever(
    stage: Stage, price: Price, make_usage: MakeUsage
) -> None:
    await funded(stage, price)
    message = [make_usage("req_1", price_id="price2"), make_usage("req_2", price_id="")]
    with pytest.raises(PriceNotKnown):
        await stage.metering.charge(message, PRICE_ATTEMPTS - 1)
    assert await stage.set_aside() == {"req_2": "unknown_price"}
    await stage.metering.charge(message, PRICE_ATTEMPTS)
    assert await stage.set_aside() == {"req_1": "unknown_price", "req_2": "unknown_price"}
    assert await stage.balance() == 1000


async def test_what_cannot_be_charged_is_set_aside_once_and_the_rest_is_charged(
    stage: Stage, price: Price, make_usage: MakeUsage
) -> None:
    await funded(stage, price)
    message = [
        make_usage("req_1", account_id="nobody"),
        make_usage("req_2"),
        make_usage("req_3", quantities={"input_tokens": -500}),
        make_usage("req_4", account_id="No\0body", model="\0", price_id="\0"),
        make_usage("'req 5'"),
        make_usage("req_6", quantities={"output_tokens": 10**15}),
    ]
    await stage.metering.charge(message, 1)
    await stage.metering.charge(message, 2)
    assert await stage.balance() == 998
    assert await stage.set_aside() == {
        "req_1": "unknown_account",
        "req_3": "ill_formed",
        "req_4": "ill_formed",
        "'req 5'": "ill_formed",
        "req_6": "too_large",
    }


async def test_nothing_reported_is_nothing_charged(stage: Stage) -> None:
    await stage.metering.charge([], 1)
    assert await stage.events() == []


async def test_a_new_price_changes_no_charge_of_the_old_one(
    stage: Stage, price: Price, make_usage: MakeUsage
) -> None:
    await funded(stage, price)
    await stage.metering.charge([make_usage("req_1")], 1)
    dearer = replace(price, id="price2", nano_credits={"input_tokens": 100}, effective_from=NOW)
    await stage.metering.learn_price(dearer)
    assert await stage.balance() == 998
    admitted_before = make_usage("req_2", finished_at=NOW + timedelta(hours=1))
    await stage.metering.charge([make_usage("req_1"), admitted_before], 2)
    assert await stage.balance() == 996
    await stage.metering.charge([make_usage("req_3", price_id="price2")], 1)
    assert await stage.balance() == 896
    rated = [
        charge for event in await stage.events() if isinstance(event, UsageRated) for charge in event.charges
    ]
    charged = [(one.usage.request_id, one.usage.price_id, one.nano_credits) for one in rated]
    assert charged == [("req_1", "price1", 2), ("req_2", "price1", 2), ("req_3", "price2", 100)]


async def test_a_price_never_changes(stage: Stage, price: Price, make_usage: MakeUsage) -> None:
    await funded(stage, price)
    await stage.metering.learn_price(replace(price, nano_credits={"input_tokens": 900}))
    await stage.metering.charge([make_usage("req_1")], 1)
    assert await stage.balance() == 998
    for senseless in (replace(price, id=""), replace(price, id="price2", nano_credits={"input_tokens": -1})):
        with pytest.raises(InvalidPrice):
            await stage.metering.learn_price(senseless)
