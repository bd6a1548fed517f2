"""Grants, adjustments, refunds and expiry on a real database."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from dozen.credits.v1.credits_events_pb2 import (
    BALANCE_CHANGE_ADJUSTMENT,
    BALANCE_CHANGE_EXPIRY,
    BALANCE_CHANGE_REFUND,
    BalanceChanged,
    BalanceExhausted,
    BalanceLow,
    CreditsGranted,
)
from dozen_chassis.postgres import Database
from dozen_credits.domain.leases import LeaseWish
from dozen_credits.domain.ledger import Kind
from dozen_credits.domain.metering import Price, Usage
from dozen_credits.domain.postings import Posting
from dozen_credits.errors.accounts import (
    AccountNotFound,
    IdempotencyKeyReused,
    InsufficientBalance,
    InvalidCorrection,
    InvalidGrant,
)
from dozen_credits.errors.metering import NothingToRefund, RequestNotFound
from dozen_credits.repository.accounts import AccountsRepository
from dozen_credits.repository.leases import LeasesRepository
from dozen_credits.repository.metering import MeteringRepository
from dozen_credits.repository.postings import PostingsRepository
from dozen_credits.service.accounts import Accounts
from dozen_credits.service.leases import Leases
from dozen_credits.service.metering import Metering
from dozen_credits.service.postings import Postings

pytestmark = pytest.mark.integration

MakeUsage = Callable[..., Usage]
Check = Callable[[], Awaitable[None]]
SOON = datetime.now(UTC) + timedelta(hours=1)


class Bank:
    """The use cases on one database; an input token costs one nano-credit."""

    def __init__(self, database: Database, make_usage: MakeUsage) -> None:
        self.database = database
        self.accounts = Accounts(AccountsRepository(database))
        self.postings = Postings(PostingsRepository(database), low_balance=20)
        self.metering = Metering(MeteringRepository(database), price_attempts=5, low_balance=20)
        self.leases = Leases(
            LeasesRepository(database), lifetime=timedelta(minutes=1), longest_request=timedelta(0)
        )
        self._make_usage = make_usage

    async def grant(self, key: str, amount: int, **more: Any) -> None:
        await self.postings.grant(Posting(Kind.GRANT, key, "acme", amount, "welcome", **more))

    async def adjust(self, key: str, amount: int) -> None:
        await self.postings.adjust(Posting(Kind.ADJUSTMENT, key, "acme", amount, "mistake", "alice"))

    async def refund(self, key: str, amount: int, request_id: str = "req_1") -> int:
        made = await self.postings.refund(
            request_id, amount, idempotency_key=key, reason="bad answer", actor="alice"
        )
        return made.nano_credits

    async def spend(self, request_id: str, tokens: int, **more: Any) -> None:
        usage = self._make_usage(request_id, quantities={"input_tokens": tokens}, **more)
        await self.metering.charge([usage], 1)

    async def balance(self) -> int:
        return (await self.accounts.get("acme")).balance.available

    async def pass_by(self, key: str) -> None:
        """Let the time come at which a grant expires."""
        await self.database.pool.execute(
            "update postings set expires_at = now() - interval '1 s' where idempotency_key = $1", key
        )

    async def events(self, kind: type[Any]) -> list[Any]:
        rows = await self.database.pool.fetch(
            "select payload from outbox where subject = $1 order by id", kind.DESCRIPTOR.full_name
        )
        return [kind.FromString(row["payload"]) for row in rows]


@pytest.fixture
async def bank(database: Database, price: Price, make_usage: MakeUsage) -> Bank:
    """Keeps an empty account."""
    bank = Bank(database, make_usage)
    await bank.accounts.open("acme", "Acme")
    await bank.accounts.open("other", "Other")
    await bank.metering.learn_price(replace(price, nano_credits={"input_tokens": 1}))
    return bank


async def test_a_grant_is_made_once_per_key(bank: Bank, assert_books_agree: Check) -> None:
    grant = Posting(Kind.GRANT, "key", "acme", 7, "welcome")
    for _ in range(2):
        await bank.postings.grant(grant)
    changes: list[dict[str, Any]] = [
        {"nano_credits": 8},
        {"account_id": "other"},
        {"reason": "again"},
        {"priority": 1},
        {"expires_at": SOON},
    ]
    for changed in changes:
        with pytest.raises(IdempotencyKeyReused):
            await bank.postings.grant(replace(grant, **changed))
    with pytest.raises(IdempotencyKeyReused):
        await bank.adjust("key", 7)
    assert await bank.balance() == 7
    (event,) = await bank.events(CreditsGranted)
    assert (event.nano_credits, event.reason, event.balance.version) == (7, "welcome", 2)
    assert event.grant_id.startswith("grant_")
    await assert_books_agree()


@pytest.mark.parametrize(
    "changes",
    [
        {"nano_credits": 0},
        {"nano_credits": -1},
        {"nano_credits": 10**15 + 1},
        {"idempotency_key": ""},
        {"idempotency_key": "k" * 256},
        {"idempotency_key": "\0"},
        {"reason": "r" * 501},
        {"priority": -1},
        {"priority": 101},
        {"expires_at": datetime(2026, 1, 1, tzinfo=UTC)},
    ],
)
async def test_a_grant_outside_the_limits_is_refused(bank: Bank, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidGrant):
        await bank.postings.grant(replace(Posting(Kind.GRANT, "key", "acme", 7, ""), **changes))
    assert await bank.balance() == 0


@pytest.mark.parametrize("account_id", ["nobody", "No account", "\0"])
async def test_an_unknown_account_gets_nothing_and_the_key_stays_free(bank: Bank, account_id: str) -> None:
    grant = Posting(Kind.GRANT, "key", account_id, 7, "")
    with pytest.raises(AccountNotFound):
        await bank.postings.grant(grant)
    await bank.postings.grant(replace(grant, account_id="acme"))
    assert await bank.balance() == 7


async def test_an_adjustment_takes_no_more_than_is_available(bank: Bank, assert_books_agree: Check) -> None:
    await bank.adjust("up", 100)
    await bank.leases.acquire(LeaseWish("acme", "gateway1", 40, 0, "token"))
    for _ in range(2):
        await bank.adjust("down", -60)
    with pytest.raises(InsufficientBalance):
        await bank.adjust("more", -1)
    assert await bank.balance() == 0
    changes = [
        (event.change, event.nano_credits, event.reason, event.actor, event.balance.leased_nano_credits)
        for event in await bank.events(BalanceChanged)
    ]
    assert changes == [
        (BALANCE_CHANGE_ADJUSTMENT, 100, "mistake", "alice", 0),
        (BALANCE_CHANGE_ADJUSTMENT, -60, "mistake", "alice", 40),
    ]
    for changed in ({"reason": ""}, {"actor": ""}, {"nano_credits": 0}, {"nano_credits": -(10**15) - 1}):
        with pytest.raises(InvalidCorrection):
            await bank.postings.adjust(
                replace(Posting(Kind.ADJUSTMENT, "key", "acme", 1, "why", "who"), **changed)
            )
    await assert_books_agree()


async def test_refunds_of_a_request_are_no_more_than_it_paid(bank: Bank, assert_books_agree: Check) -> None:
    await bank.grant("first", 100)
    await bank.spend("req_1", 130)  # 30 are written off
    assert await bank.refund("a", 40) == 40
    assert await bank.refund("a", 40) == 40
    assert await bank.balance() == 40
    with pytest.raises(NothingToRefund):
        await bank.refund("b", 61)
    assert await bank.refund("c", 0) == 60
    assert await bank.refund("c", 0) == 60
    with pytest.raises(NothingToRefund):
        await bank.refund("d", 0)
    with pytest.raises(IdempotencyKeyReused):
        await bank.refund("a", 41)
    with pytest.raises(IdempotencyKeyReused):
        await bank.postings.refund("req_1", 40, idempotency_key="a", reason="another reason", actor="alice")
    for unknown in ("req_2", "", "\0"):
        with pytest.raises(RequestNotFound):
            await bank.refund("e", 1, unknown)
    with pytest.raises(InvalidCorrection):
        await bank.refund("e", -1)
    assert await bank.balance() == 100
    told = [
        (event.change, event.nano_credits, event.request_id) for event in await bank.events(BalanceChanged)
    ]
    assert told == [(BALANCE_CHANGE_REFUND, 40, "req_1"), (BALANCE_CHANGE_REFUND, 60, "req_1")]
    with pytest.raises(asyncpg.CheckViolationError):
        await bank.database.pool.execute("update usage set refunded = refunded + 1")
    await assert_books_agree()


async def test_concurrent_refunds_give_back_what_was_paid_and_no_more(
    bank: Bank, assert_books_agree: Check
) -> None:
    await bank.grant("first", 100)
    await bank.spend("req_1", 100)
    async with asyncio.timeout(60):
        results = await asyncio.gather(
            *(bank.refund(f"key{number}", 7) for number in range(30)), return_exceptions=True
        )
    assert results.count(7) == 14
    assert sum(isinstance(result, NothingToRefund) for result in results) == 16
    assert await bank.balance() == 98
    await assert_books_agree()


async def test_what_expires_first_is_spent_first(bank: Bank, assert_books_agree: Check) -> None:
    await bank.grant("for ever", 100)
    await bank.grant("late", 100, expires_at=SOON + timedelta(days=1))
    await bank.grant("soon", 100, expires_at=SOON)
    await bank.grant("last", 100, expires_at=SOON, priority=100)
    await bank.spend("req_1", 120)  # all of `soon`, 20 of `late`
    await bank.pass_by("soon")
    await bank.postings.expire()
    assert await bank.balance() == 280
    await bank.pass_by("late")
    await bank.postings.expire()
    assert await bank.balance() == 200
    await bank.spend("req_2", 120)  # all of `for ever`, 20 of `last`
    await bank.pass_by("last")
    for _ in range(2):
        await bank.postings.expire()
    assert await bank.balance() == 0
    told = [(event.change, event.nano_credits) for event in await bank.events(BalanceChanged)]
    assert told == [(BALANCE_CHANGE_EXPIRY, -80), (BALANCE_CHANGE_EXPIRY, -80)]
    assert len(await bank.events(BalanceLow)) == len(await bank.events(BalanceExhausted)) == 1
    await assert_books_agree()


async def test_what_was_spent_before_a_grant_is_not_taken_from_it(
    bank: Bank, assert_books_agree: Check
) -> None:
    await bank.grant("for ever", 100)
    await bank.spend("req_1", 70)
    await bank.grant("soon", 100, expires_at=SOON)
    await bank.spend("req_2", 10)
    await bank.pass_by("soon")
    await bank.postings.expire()
    assert await bank.balance() == 30
    await assert_books_agree()


async def test_what_leases_hold_does_not_expire_before_they_return_it(
    bank: Bank, assert_books_agree: Check
) -> None:
    await bank.grant("soon", 100, expires_at=SOON)
    acquired = await bank.leases.acquire(LeaseWish("acme", "gateway1", 60, 0, "token"))
    assert acquired.lease is not None
    await bank.pass_by("soon")
    await bank.postings.expire()
    balance = (await bank.accounts.get("acme")).balance
    assert (balance.available, balance.leased) == (0, 60)
    await bank.spend("req_1", 25, lease_id=acquired.lease.id)
    await bank.leases.release(acquired.lease.id, 0)
    assert await bank.balance() == 35
    async with asyncio.timeout(60):
        await asyncio.gather(*(bank.postings.expire() for _ in range(4)))
    assert await bank.balance() == 0
    assert [event.nano_credits for event in await bank.events(BalanceChanged)] == [-40, -35]
    await assert_books_agree()
