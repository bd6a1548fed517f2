"""The use cases that move credits on stores in memory and on the real ones, and what they leave behind."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol

from dozen_chassis.postgres import Database
from dozen_credits.domain.accounts import Balance
from dozen_credits.domain.leases import KeyMonth, Lease
from dozen_credits.domain.ledger import Book
from dozen_credits.domain.metering import Price
from dozen_credits.domain.usage import UNITS, Step, SumKey
from dozen_credits.repository.accounts import AccountsRepository
from dozen_credits.repository.leases import LeasesRepository, read_lease
from dozen_credits.repository.ledger import balance as read_balance
from dozen_credits.repository.metering import MeteringRepository
from dozen_credits.repository.postings import PostingsRepository
from dozen_credits.service.accounts import Accounts
from dozen_credits.service.leases import Leases, LeaseStore
from dozen_credits.service.metering import Metering, MeteringStore
from dozen_credits.service.postings import Postings

from .memory import MemoryAccounts, MemoryLeases, MemoryMetering, MemoryPostings, Tables

GRACE = timedelta(minutes=20)
LOW = 100
PRICE_ATTEMPTS = 5
UNIT_PRICE = Price("price1", "model1", {"input_tokens": 1}, datetime(2026, 1, 1, tzinfo=UTC))
"""An input token costs one nano-credit."""


class Charged(NamedTuple):
    """A request that was charged."""

    account_id: str
    key_id: str
    finished_at: datetime
    nano_credits: int
    written_off: int
    refunded: int


@dataclass(frozen=True)
class View:
    """All that is kept of money."""

    balances: Mapping[str, Balance]
    books: Mapping[tuple[str, Book], int]
    """What entries add up to."""
    leases: Sequence[Lease]
    charged: Sequence[tuple[str, Charged]]
    spending: Mapping[KeyMonth, int]
    sums: Mapping[SumKey, Sequence[int]]
    invoices: Mapping[tuple[object, ...], int]
    """Quantities by account, month, model, price and unit."""
    remaining: Mapping[str, int]
    """What is left of what postings gave each account, as of when it was counted last."""

    def check(self) -> None:
        """Check that all that is kept apart says the same, and that nothing is where it cannot be."""
        assert sum(self.books.values()) == 0
        ids = [request_id for request_id, _ in self.charged]
        assert len(ids) == len(set(ids)), "a request is charged twice"
        for lease in self.leases:
            assert lease.spent + lease.returned <= lease.nano_credits
            assert lease.closed_at is None or lease.left == 0
        for account_id in self.balances:
            self._check_account(account_id)
        spending: Counter[KeyMonth] = Counter()
        for _, one in self.charged:
            month = one.finished_at.date().replace(day=1)
            spending[KeyMonth(one.account_id, one.key_id, month)] += one.nano_credits
        assert self.spending == spending
        for step in Step:
            summed: Counter[str] = Counter()
            for key, (_, nano_credits, *_) in self.sums.items():
                if key.step is step:
                    summed[key.account_id] += nano_credits
            assert summed == _by_account(spending)

    def _check_account(self, account_id: str) -> None:
        balance = self.balances[account_id]
        books = {book: self.books.get((account_id, book), 0) for book in Book}
        charged = [one for _, one in self.charged if one.account_id == account_id]
        cost = sum(one.nano_credits for one in charged)
        written_off = sum(one.written_off for one in charged)
        refunded = sum(one.refunded for one in charged)
        assert (balance.available, balance.leased) == (books[Book.AVAILABLE], books[Book.LEASED])
        assert min(balance.available, balance.leased) >= 0
        assert balance.leased == sum(lease.left for lease in self.leases if lease.account_id == account_id)
        assert books[Book.REVENUE] == cost - refunded
        assert books[Book.WRITTEN_OFF] == -written_off
        assert -books[Book.ISSUED] == balance.total + cost - written_off - refunded
        assert self.remaining.get(account_id, 0) >= balance.total


class Bank(Protocol):
    """The use cases, with what only tests can do."""

    accounts: Accounts
    leases: Leases
    metering: Metering
    postings: Postings

    async def clear(self) -> None:
        """Forget everything."""
        ...

    async def let_expire(self, lease_id: str) -> None:
        """Let so much time pass that a lease is overdue."""
        ...

    async def pass_by(self, account_id: str, idempotency_key: str) -> None:
        """Let the time come at which a grant expires."""
        ...

    async def view(self) -> View:
        """Give all that is kept of money."""
        ...


class MemoryBank:
    """Keeps everything in memory."""

    def __init__(
        self,
        leases: Callable[[Tables], LeaseStore] = MemoryLeases,
        metering: Callable[[Tables], MeteringStore] = MemoryMetering,
    ) -> None:
        self.tables = tables = Tables()
        self.accounts = Accounts(MemoryAccounts(tables))
        self.leases = Leases(leases(tables), lifetime=timedelta(seconds=60), longest_request=GRACE)
        self.metering = Metering(metering(tables), price_attempts=PRICE_ATTEMPTS, low_balance=LOW)
        self._postings = MemoryPostings(tables)
        self.postings = Postings(self._postings, low_balance=LOW)

    async def clear(self) -> None:
        vars(self.tables).update(vars(Tables()))

    async def let_expire(self, lease_id: str) -> None:
        lease = self.tables.leases[lease_id]
        self.tables.leases[lease_id] = replace(lease, expires_at=self.tables.now - 2 * GRACE)

    async def pass_by(self, account_id: str, idempotency_key: str) -> None:
        await self._postings.count_spent([account_id])
        for posting_id, posting in self.tables.postings.items():
            if posting.idempotency_key == idempotency_key:
                self.tables.postings[posting_id] = replace(posting, expires_at=self.tables.now)

    async def view(self) -> View:
        tables = self.tables
        books: Counter[tuple[str, Book]] = Counter()
        for transfer in tables.transfers:
            books[transfer.account_id, transfer.debit] -= transfer.nano_credits
            books[transfer.account_id, transfer.credit] += transfer.nano_credits
        charged = []
        for payment in tables.usage:
            usage, cost = payment.charge.usage, payment.charge.nano_credits
            refunded = tables.refunded[usage.request_id]
            kept = (usage.account_id, usage.key_id, usage.finished_at, cost, payment.written_off, refunded)
            charged.append((usage.request_id, Charged(*kept)))
        remaining: Counter[str] = Counter()
        for posting_id, amount in tables.remaining.items():
            remaining[tables.postings[posting_id].account_id] += amount
        invoices: Counter[tuple[object, ...]] = Counter()
        for bill in tables.bills:
            for of, quantities in bill.quantities.items():
                for unit, quantity in quantities.items():
                    invoices[(bill.account_id, bill.month.start, *of, unit)] += quantity
        return View(
            balances={name: account.balance for name, account in tables.accounts.items()},
            books=books,
            leases=list(tables.leases.values()),
            charged=charged,
            spending=tables.spending,
            sums={key: tuple(amounts) for key, amounts in tables.sums.items()},
            invoices=invoices,
            remaining=remaining,
        )


class PostgresBank:
    """Keeps everything in a database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.accounts = Accounts(AccountsRepository(database))
        leases = LeasesRepository(database)
        self.leases = Leases(leases, lifetime=timedelta(seconds=60), longest_request=GRACE)
        self.metering = Metering(MeteringRepository(database), price_attempts=PRICE_ATTEMPTS, low_balance=LOW)
        self._postings = PostingsRepository(database)
        self.postings = Postings(self._postings, low_balance=LOW)

    async def clear(self) -> None:
        tables = await self.database.pool.fetchval(
            "select string_agg(format('%I', tablename), ', ') from pg_tables"
            " where schemaname = 'public' and tablename <> 'migrations'"
        )
        await self.database.pool.execute(f"truncate {tables}")

    async def let_expire(self, lease_id: str) -> None:
        await self.database.pool.execute(
            "update leases set expires_at = now() - $2::interval where id = $1", lease_id, 2 * GRACE
        )

    async def pass_by(self, account_id: str, idempotency_key: str) -> None:
        await self._postings.count_spent([account_id])
        await self.database.pool.execute(
            "update postings set expires_at = now() where idempotency_key = $1", idempotency_key
        )

    async def view(self) -> View:
        fetch = self.database.pool.fetch
        sums = await fetch(
            f"select account_id, step, start, key_id, model, operation, requests, nano_credits,"
            f" {', '.join(UNITS)} from usage_sums"
        )
        return View(
            balances={row["id"]: read_balance(row) for row in await fetch("select * from accounts")},
            books={
                (account_id, Book(book)): int(amount)
                for account_id, book, amount in await fetch(
                    "select account_id, book, sum(nano_credits) from entries group by 1, 2"
                )
            },
            leases=[read_lease(row) for row in await fetch("select * from leases")],
            charged=[
                (request_id, Charged(*charged))
                for request_id, *charged in await fetch(
                    "select request_id, account_id, key_id, finished_at, nano_credits, written_off, refunded"
                    " from usage"
                )
            ],
            spending={KeyMonth(*key): amount for *key, amount in await fetch("select * from key_spending")},
            sums={SumKey(row[0], Step(row[1]), *row[2:6]): row[6:] for row in map(tuple, sums)},
            invoices={
                tuple(key): int(quantity) for *key, quantity in await fetch("select * from invoice_lines")
            },
            remaining={
                account_id: int(amount)
                for account_id, amount in await fetch(
                    "select account_id, sum(remaining) from postings group by 1"
                )
            },
        )


def _by_account(spending: Mapping[KeyMonth, int]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for key, amount in spending.items():
        sums[key.account_id] += amount
    return sums
