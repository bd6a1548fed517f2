"""The books in memory answer as the real database does."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from dozen_chassis.postgres import Database
from dozen_credits.domain.accounts import Balance
from dozen_credits.domain.leases import Budget, Lease, LeaseWish, Period
from dozen_credits.domain.ledger import Book, Kind, Transfer
from dozen_credits.domain.metering import Price
from dozen_credits.repository.accounts import AccountsRepository
from dozen_credits.repository.leases import LeasesRepository
from dozen_credits.repository.metering import MeteringRepository
from dozen_credits.service.leases import Leases, LeaseStore
from dozen_credits.service.metering import Metering, MeteringStore
from dozen_testing.databases import TestDatabases
from simulation.bank import PRICE_ID, usage
from simulation.books import Books, Tables
from simulation.plan import PRICE

pytestmark = pytest.mark.integration

ACCOUNT = "acme"
MINUTE = timedelta(minutes=1)


class Bank:
    """The use cases of credits on a store, and what they answered."""

    def __init__(self, leases: LeaseStore, metering: MeteringStore) -> None:
        self._store = leases
        self._leases = Leases(leases, lifetime=MINUTE, longest_request=MINUTE)
        self._overdue = Leases(leases, lifetime=-2 * MINUTE, longest_request=MINUTE)
        self._metering = Metering(metering, price_attempts=1, low_balance=0)
        self._names: dict[str, int] = {}

    async def play(self, seed: int) -> list[Any]:
        """Do much at random, always the same; give the answers, with leases by number."""
        random = Random(seed)
        async with self._store.transaction() as tx:
            await tx.lock([ACCOUNT])
            await tx.post([Transfer(ACCOUNT, Kind.GRANT, Book.ISSUED, Book.AVAILABLE, 3000, "grant")])
        answers: list[Any] = []
        leases: list[str] = []
        for number in range(120):
            what = random.choice(("acquire", "acquire", "charge", "charge", "release", "sweep"))
            if what == "acquire":
                answers.append(await self._acquire(random, number, leases))
            elif what == "release" and leases:
                answers.append(
                    self._seen(await self._leases.release(random.choice(leases), random.randint(0, 90)))
                )
            elif what == "charge":
                await self._charge(random, leases)
            elif what == "sweep" and random.random() < 0.3:
                await self._leases.close_overdue()
            answers.append(await self._balance())
        return answers

    async def _acquire(self, random: Random, number: int, leases: list[str]) -> Any:
        key, holder = random.choice(("", "", "laptop")), random.choice("ab")
        period = random.choice(list(Period))
        wish = LeaseWish(
            ACCOUNT,
            holder,
            needed=random.choice((0, 20, random.randint(1, 400))),
            wanted=random.randint(0, 400),
            request_token=f"token{random.randint(number // 2, number)}",
            budget=Budget(key, 700, period) if key else None,
        )
        acquired = await (self._overdue if random.random() < 0.2 else self._leases).acquire(wish)
        if acquired.lease and acquired.lease.id not in leases:
            leases.append(acquired.lease.id)
        return self._seen(acquired.lease), acquired.added, _seen(acquired.balance), acquired.budget_left

    async def _charge(self, random: Random, leases: list[str]) -> None:
        usages = [
            usage(
                f"req{random.randint(1, 100)}",
                ACCOUNT,
                random.choice(("laptop", "server")),
                random.choice(leases) if leases and random.random() < 0.8 else "",
                {"output_tokens": random.randint(0, 6)},
                datetime.now(UTC),
            )
            for _ in range(random.randint(1, 3))
        ]
        await self._metering.charge(usages, 1)

    async def _balance(self) -> Any:
        async with self._store.transaction() as tx:
            return _seen((await tx.lock([ACCOUNT]))[ACCOUNT])

    def _seen(self, lease: Lease | None) -> Any:
        if lease is None:
            return None
        number = self._names.setdefault(lease.id, len(self._names))
        amounts = (lease.nano_credits, lease.spent, lease.returned)
        return number, lease.key_id, lease.holder, *amounts, lease.closed_at is not None


def _seen(balance: Balance) -> Any:
    return balance.available, balance.leased, balance.version


@pytest.fixture
async def real(databases: TestDatabases) -> AsyncIterator[Bank]:
    """Credits on PostgreSQL."""
    async with databases.fresh("dozen_credits") as dsn:
        database = await Database.open(dsn)
        await AccountsRepository(database).open(ACCOUNT, "")
        metering = MeteringRepository(database)
        await metering.learn(Price(PRICE_ID, "smol", PRICE, datetime.now(UTC)))
        yield Bank(LeasesRepository(database), metering)
        await database.close()


def in_memory() -> Bank:
    async def pause() -> None:
        pass

    prices = {PRICE_ID: Price(PRICE_ID, "smol", PRICE, datetime.now(UTC))}
    tables = Tables(lambda: datetime.now(UTC), pause, prices)
    tables.balances[ACCOUNT] = Balance(ACCOUNT, 0, 0, 1)
    books = Books(tables)
    return Bank(books, books)


@pytest.mark.parametrize("seed", range(5))
async def test_they_answer_alike(real: Bank, seed: int) -> None:
    assert await in_memory().play(seed) == await real.play(seed)
