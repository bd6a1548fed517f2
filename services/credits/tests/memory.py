"""The stores of accounts, leases, postings and metering in memory, as simple as they can be."""

import copy
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Self

from google.protobuf.message import Message

from dozen_credits.domain.accounts import Account, Balance
from dozen_credits.domain.invoices import Bill
from dozen_credits.domain.leases import Budget, KeyMonth, Lease, LeaseWish, Payment, Period
from dozen_credits.domain.ledger import Book, Transfer
from dozen_credits.domain.metering import Price, Unrated
from dozen_credits.domain.postings import Lot, Posting
from dozen_credits.domain.usage import SumKey


@dataclass
class Tables:
    """All that is kept."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    accounts: dict[str, Account] = field(default_factory=dict)
    transfers: list[Transfer] = field(default_factory=list)
    leases: dict[str, Lease] = field(default_factory=dict)
    extensions: dict[tuple[str, str, str], tuple[str, int]] = field(default_factory=dict)
    prices: dict[str, Price] = field(default_factory=dict)
    claimed: dict[str, datetime] = field(default_factory=dict)
    usage: list[Payment] = field(default_factory=list)
    refunded: Counter[str] = field(default_factory=Counter)
    spending: Counter[KeyMonth] = field(default_factory=Counter)
    sums: dict[SumKey, Sequence[int]] = field(default_factory=dict)
    bills: list[Bill] = field(default_factory=list)
    aside: list[Unrated] = field(default_factory=list)
    postings: dict[str, Posting] = field(default_factory=dict)
    remaining: dict[str, int] = field(default_factory=dict)
    events: list[Message] = field(default_factory=list)


class MemoryLedger:
    """Balances and transfers; a transaction that fails is undone."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Self]:
        before = {name: copy.copy(table) for name, table in vars(self.tables).items()}
        self.tables.now += timedelta(microseconds=1)
        try:
            yield self
        except BaseException:
            vars(self.tables).update(before)
            raise

    async def emit(self, event: Message) -> None:
        self.tables.events.append(event)

    async def lock(self, account_ids: Collection[str]) -> dict[str, Balance]:
        accounts = self.tables.accounts
        return {name: accounts[name].balance for name in account_ids if name in accounts}

    async def post(self, transfers: Sequence[Transfer]) -> dict[str, Balance]:
        changed = {}
        for name in {transfer.account_id for transfer in transfers}:
            moved: Counter[Book] = Counter()
            for transfer in transfers:
                if transfer.account_id == name:
                    moved[transfer.credit] += transfer.nano_credits
                    moved[transfer.debit] -= transfer.nano_credits
            old = self.tables.accounts[name].balance
            balance = Balance(
                name,
                old.available + moved[Book.AVAILABLE],
                old.leased + moved[Book.LEASED],
                old.version + bool(moved[Book.AVAILABLE] or moved[Book.LEASED]),
            )
            assert min(balance.available, balance.leased) >= 0
            if balance != old:
                changed[name] = balance
                self.tables.accounts[name] = replace(self.tables.accounts[name], balance=balance)
        self.tables.transfers += transfers
        return changed


class MemoryAccounts(MemoryLedger):
    """Accounts."""

    async def open(self, account_id: str, name: str) -> Account | None:
        if account_id in self.tables.accounts:
            return None
        now = self.tables.now
        opened = Account(account_id, name, Balance(account_id, 0, 0, 1), now, now)
        return self.tables.accounts.setdefault(account_id, opened)

    async def find(self, account_id: str) -> Account | None:
        return self.tables.accounts.get(account_id)

    async def page(self, after: str, limit: int) -> list[Account]:
        accounts = sorted(self.tables.accounts.items())
        return [account for name, account in accounts if name > after][:limit]


class MemoryLeases(MemoryLedger):
    """Leases; none is ever forgotten."""

    async def find(self, lease_id: str) -> Lease | None:
        return self.tables.leases.get(lease_id)

    async def find_extension(self, wish: LeaseWish) -> tuple[str, int] | None:
        return self.tables.extensions.get((wish.account_id, wish.holder, wish.request_token))

    async def committed(self, account_id: str, budget: Budget) -> int:
        month = self.tables.now.date().replace(day=1)
        whose = (account_id, budget.key_id)
        charged = sum(
            amount
            for key, amount in self.tables.spending.items()
            if key[:2] == whose and (budget.period is Period.TOTAL or key.month == month)
        )
        leases = (lease for lease in self.tables.leases.values() if not lease.closed_at)
        return charged + sum(lease.left for lease in leases if (lease.account_id, lease.key_id) == whose)

    async def renew(self, wish: LeaseWish, lifetime: timedelta) -> Lease | None:
        for lease in self.tables.leases.values():
            whose = (lease.account_id, lease.key_id, lease.holder)
            if not lease.closed_at and whose == (wish.account_id, wish.key_id, wish.holder):
                return self._set(replace(lease, expires_at=self.tables.now + lifetime))
        return None

    async def extend(self, lease_id: str, wish: LeaseWish, nano_credits: int, lifetime: timedelta) -> Lease:
        lease = await self.renew(wish, lifetime)
        if lease is None:
            expires_at = self.tables.now + lifetime
            lease = Lease(
                lease_id, wish.account_id, wish.key_id, wish.holder, 0, 0, 0, expires_at, closed_at=None
            )
        token = (wish.account_id, wish.holder, wish.request_token)
        assert token not in self.tables.extensions
        self.tables.extensions[token] = (lease.id, nano_credits)
        return self._set(replace(lease, nano_credits=lease.nano_credits + nano_credits))

    async def give_back(self, amounts: Mapping[str, int]) -> dict[str, Lease]:
        freed = {}
        for lease_id, amount in amounts.items():
            lease = self.tables.leases[lease_id]
            lease = replace(lease, returned=lease.returned + amount)
            freed[lease_id] = self._set(replace(lease, closed_at=None if lease.left else self.tables.now))
        return freed

    async def accounts_with_overdue(self, grace: timedelta, limit: int) -> set[str]:
        return {lease.account_id for lease in self._overdue(grace)[:limit]}

    async def overdue(self, account_ids: Collection[str], grace: timedelta, limit: int) -> list[Lease]:
        return [lease for lease in self._overdue(grace) if lease.account_id in account_ids][:limit]

    async def forget(self, extensions: timedelta, leases: timedelta, limit: int) -> int:
        return 0

    def _overdue(self, grace: timedelta) -> list[Lease]:
        found = (lease for lease in self.tables.leases.values() if not lease.closed_at)
        return [lease for lease in found if lease.expires_at + grace < self.tables.now]

    def _set(self, lease: Lease) -> Lease:
        self.tables.leases[lease.id] = lease
        return lease


class MemoryPostings(MemoryLedger):
    """Postings."""

    async def find(self, idempotency_key: str) -> Posting | None:
        made = (one for one in self.tables.postings.values() if one.idempotency_key == idempotency_key)
        return next(made, None)

    async def keep(self, posting_id: str, posting: Posting) -> bool:
        if await self.find(posting.idempotency_key):
            return False
        self.tables.postings[posting_id] = posting
        self.tables.remaining[posting_id] = max(posting.nano_credits, 0)
        return True

    async def find_charged(self, request_id: str) -> tuple[str, int] | None:
        for payment in self.tables.usage:
            usage = payment.charge.usage
            if usage.request_id == request_id:
                paid = payment.charge.nano_credits - payment.written_off
                return usage.account_id, paid - self.tables.refunded[request_id]
        return None

    async def count_refund(self, request_id: str, nano_credits: int) -> None:
        self.tables.refunded[request_id] += nano_credits

    async def count_spent(self, account_ids: Collection[str]) -> None:
        for account_id in account_ids:
            lots = self._lots(account_id)
            left = sum(lot.remaining for lot in lots) - self.tables.accounts[account_id].balance.total
            for lot in lots:
                left -= (taken := min(left, lot.remaining))
                self.tables.remaining[lot.posting_id] -= taken

    async def accounts_with_expired(self, limit: int) -> set[str]:
        accounts = self.tables.accounts.values()
        able = (one.id for one in accounts if one.balance.available > 0 or one.balance.leased == 0)
        return {account_id for account_id in able if await self.expired([account_id])}

    async def expired(self, account_ids: Collection[str]) -> list[Lot]:
        return [
            lot
            for account_id in sorted(account_ids)
            for lot in self._lots(account_id)
            if self._expiry(lot.posting_id) <= self.tables.now
        ]

    async def take_back(self, lots: Collection[Lot]) -> None:
        for lot in lots:
            self.tables.remaining[lot.posting_id] -= lot.remaining

    def _lots(self, account_id: str) -> list[Lot]:
        """Give what is left of postings, in the order in which it is spent."""
        postings = [(name, one) for name, one in self.tables.postings.items() if one.account_id == account_id]
        postings.sort(key=lambda named: (named[1].priority, self._expiry(named[0])))
        lots = (Lot(name, account_id, self.tables.remaining[name]) for name, _ in postings)
        return [lot for lot in lots if lot.remaining]

    def _expiry(self, posting_id: str) -> datetime:
        return self.tables.postings[posting_id].expires_at or datetime.max.replace(tzinfo=UTC)


class MemoryMetering(MemoryLedger):
    """Prices, usage and its sums."""

    async def learn(self, price: Price) -> None:
        self.tables.prices.setdefault(price.id, price)

    async def prices(self, ids: Collection[str]) -> dict[str, Price]:
        return {name: price for name, price in self.tables.prices.items() if name in ids}

    async def claim(self, requests: Mapping[str, datetime]) -> set[str]:
        fresh = requests.keys() - self.tables.claimed.keys()
        self.tables.claimed.update({request_id: requests[request_id] for request_id in fresh})
        return fresh

    async def open_leases(self, ids: Collection[str]) -> dict[str, Lease]:
        leases = self.tables.leases
        return {name: leases[name] for name in ids if name in leases and not leases[name].closed_at}

    async def spend(self, amounts: Mapping[str, int]) -> None:
        for lease_id, amount in amounts.items():
            lease = self.tables.leases[lease_id]
            self.tables.leases[lease_id] = replace(lease, spent=lease.spent + amount)

    async def keep(self, payments: Sequence[Payment]) -> None:
        assert all(any(payment.charge.usage.quantities.values()) for payment in payments)
        self.tables.usage += payments

    async def count_spending(self, sums: Mapping[KeyMonth, int]) -> None:
        self.tables.spending.update(sums)

    async def add_up(self, sums: Mapping[SumKey, Sequence[int]]) -> None:
        for key, amounts in sums.items():
            before = self.tables.sums.get(key, [0] * len(amounts))
            self.tables.sums[key] = [a + b for a, b in zip(before, amounts, strict=True)]

    async def bill(self, bills: Collection[Bill]) -> None:
        self.tables.bills += bills

    async def set_aside(self, unrated: Sequence[Unrated]) -> None:
        self.tables.aside += unrated
