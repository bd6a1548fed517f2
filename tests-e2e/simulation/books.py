"""The database of credits in memory: transactions with locks, undone where they fail."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Self, TypeVar

from google.protobuf.message import Message

from dozen_credits.domain.accounts import Balance
from dozen_credits.domain.invoices import Bill
from dozen_credits.domain.leases import Budget, KeyMonth, Lease, LeaseWish, Payment, Period
from dozen_credits.domain.ledger import Book, Transfer
from dozen_credits.domain.metering import Price, Unrated
from dozen_credits.domain.usage import Step, SumKey

Key = TypeVar("Key")
Value = TypeVar("Value")

_MISSING: Any = object()


class Impossible(Exception):
    """A CHECK or a unique key of the real database refuses this."""


@dataclass(frozen=True, slots=True)
class Commit:
    """What a transaction has changed."""

    leases: Collection[Lease]
    payments: Sequence[Payment]
    events: Sequence[Message]
    account_ids: Collection[str]


@dataclass
class Tables:
    """All that is kept, and how it is reached."""

    now: Callable[[], datetime]
    pause: Callable[[], Awaitable[None]]
    """Waits as the database may make one wait."""
    prices: dict[str, Price]
    on_commit: list[Callable[[Commit], None]] = field(default_factory=list)
    balances: dict[str, Balance] = field(default_factory=dict)
    leases: dict[str, Lease] = field(default_factory=dict)
    open: dict[tuple[str, str, str], str] = field(default_factory=dict)
    """Open leases by account, key and holder."""
    extensions: dict[tuple[str, str, str], tuple[str, int]] = field(default_factory=dict)
    claimed: dict[str, datetime] = field(default_factory=dict)
    spending: dict[KeyMonth, int] = field(default_factory=dict)
    transfers: list[Transfer] = field(default_factory=list)
    payments: list[Payment] = field(default_factory=list)
    aside: list[Unrated] = field(default_factory=list)
    summed: Counter[str] = field(default_factory=Counter)
    """What the hours of each account add up to."""
    billed: Counter[str] = field(default_factory=Counter)
    locks: dict[tuple[str, str], asyncio.Lock] = field(default_factory=dict)


class Books:
    """The stores of leases and of metering."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._undo: list[Callable[[], None]] = []
        self._locked: dict[tuple[str, str], asyncio.Lock] = {}
        self._changed: dict[str, Lease] = {}
        self._transfers: list[Transfer] = []
        self._payments: list[Payment] = []
        self._events: list[Message] = []
        self._aside: list[Unrated] = []
        self._summed: Counter[str] = Counter()
        self._billed: Counter[str] = Counter()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Self]:
        """Give the same store in one transaction, which a crash undoes."""
        tx = type(self)(self.tables)
        try:
            yield tx
            await self.tables.pause()
        except BaseException:
            tx.roll_back()
            raise
        tx.commit()

    def roll_back(self) -> None:
        """Undo what the transaction has changed."""
        for step in reversed(self._undo):
            step()
        self._unlock()

    def commit(self) -> None:
        """Keep what the transaction has changed, and tell of it."""
        tables = self.tables
        tables.transfers += self._transfers
        tables.payments += self._payments
        tables.aside += self._aside
        tables.summed.update(self._summed)
        tables.billed.update(self._billed)
        accounts = sorted({name for kind, name in self._locked if kind == "account"})
        commit = Commit(list(self._changed.values()), self._payments, self._events, accounts)
        for heard in tables.on_commit:
            heard(commit)
        self._unlock()

    def _unlock(self) -> None:
        for lock in self._locked.values():
            lock.release()

    def _put(self, table: dict[Key, Value], key: Key, value: Value) -> None:
        self._undo.append(partial(_restore, table, key, table.get(key, _MISSING)))
        table[key] = value

    async def _lock(self, kind: str, names: Collection[str]) -> None:
        for name in sorted(names):
            if (kind, name) not in self._locked:
                lock = self.tables.locks.setdefault((kind, name), asyncio.Lock())
                await lock.acquire()
                self._locked[kind, name] = lock

    async def emit(self, event: Message) -> None:
        self._events.append(event)

    async def lock(self, account_ids: Collection[str]) -> dict[str, Balance]:
        balances = self.tables.balances
        await self._lock("account", [name for name in account_ids if name in balances])
        await self.tables.pause()
        return {name: balances[name] for name in account_ids if name in balances}

    async def post(self, transfers: Sequence[Transfer]) -> dict[str, Balance]:
        moved: dict[str, Counter[Book]] = {}
        for transfer in transfers:
            of = moved.setdefault(transfer.account_id, Counter())
            of[transfer.credit] += transfer.nano_credits
            of[transfer.debit] -= transfer.nano_credits
        changed = {}
        for account_id, of in moved.items():
            old = self.tables.balances[account_id]
            if of[Book.AVAILABLE] or of[Book.LEASED]:
                changed[account_id] = new = Balance(
                    account_id,
                    old.available + of[Book.AVAILABLE],
                    old.leased + of[Book.LEASED],
                    old.version + 1,
                )
                if min(new.available, new.leased) < 0:
                    raise Impossible(f"a balance below zero: {new}")
                self._put(self.tables.balances, account_id, new)
        self._transfers += transfers
        await self.tables.pause()
        return changed

    async def find(self, lease_id: str) -> Lease | None:
        return self.tables.leases.get(lease_id)

    async def find_extension(self, wish: LeaseWish) -> tuple[str, int] | None:
        return self.tables.extensions.get((wish.account_id, wish.holder, wish.request_token))

    async def committed(self, account_id: str, budget: Budget) -> int:
        month = self.tables.now().date().replace(day=1)
        whose = (account_id, budget.key_id)
        charged = sum(
            amount
            for key, amount in self.tables.spending.items()
            if key[:2] == whose and (budget.period is Period.TOTAL or key.month == month)
        )
        return charged + sum(
            self.tables.leases[lease_id].left
            for key, lease_id in self.tables.open.items()
            if key[:2] == whose
        )

    async def renew(self, wish: LeaseWish, lifetime: timedelta) -> Lease | None:
        lease_id = self.tables.open.get((wish.account_id, wish.key_id, wish.holder))
        if lease_id is None:
            return None
        return self._change(self.tables.leases[lease_id], expires_at=self.tables.now() + lifetime)

    async def extend(self, lease_id: str, wish: LeaseWish, nano_credits: int, lifetime: timedelta) -> Lease:
        whose = (wish.account_id, wish.key_id, wish.holder)
        token = (wish.account_id, wish.holder, wish.request_token)
        expires_at = self.tables.now() + lifetime
        if (known := self.tables.open.get(whose)) is None:
            lease = Lease(lease_id, *whose[:2], wish.holder, 0, 0, 0, expires_at, closed_at=None)
            self._put(self.tables.open, whose, lease_id)
        else:
            lease = self.tables.leases[known]
        if token in self.tables.extensions:
            raise Impossible("a call adds twice")
        self._put(self.tables.extensions, token, (lease.id, nano_credits))
        return self._change(lease, nano_credits=lease.nano_credits + nano_credits, expires_at=expires_at)

    async def give_back(self, amounts: Mapping[str, int]) -> dict[str, Lease]:
        freed = {}
        for lease_id, amount in amounts.items():
            lease = self.tables.leases[lease_id]
            if lease.closed_at is None:
                closes = lease.left == amount
                freed[lease_id] = self._change(
                    lease,
                    returned=lease.returned + amount,
                    closed_at=self.tables.now() if closes else None,
                )
                if closes:
                    whose = (lease.account_id, lease.key_id, lease.holder)
                    self._undo.append(partial(_restore, self.tables.open, whose, lease_id))
                    del self.tables.open[whose]
        return freed

    async def accounts_with_overdue(self, grace: timedelta, limit: int) -> set[str]:
        return {lease.account_id for lease in self._overdue(grace)[:limit]}

    async def overdue(self, account_ids: Collection[str], grace: timedelta, limit: int) -> list[Lease]:
        return [lease for lease in self._overdue(grace) if lease.account_id in account_ids][:limit]

    async def forget(self, extensions: timedelta, leases: timedelta, limit: int) -> int:
        return 0

    def _overdue(self, grace: timedelta) -> list[Lease]:
        before = self.tables.now() - grace
        found = (self.tables.leases[lease_id] for lease_id in self.tables.open.values())
        return sorted((one for one in found if one.expires_at < before), key=lambda one: one.expires_at)

    def _change(self, lease: Lease, **changes: Any) -> Lease:
        lease = replace(lease, **changes)
        if lease.left < 0:
            raise Impossible(f"less than nothing in a lease: {lease}")
        self._put(self.tables.leases, lease.id, lease)
        self._changed[lease.id] = lease
        return lease

    async def learn(self, price: Price) -> None:
        self.tables.prices.setdefault(price.id, price)

    async def prices(self, ids: Collection[str]) -> dict[str, Price]:
        return {name: price for name, price in self.tables.prices.items() if name in ids}

    async def claim(self, requests: Mapping[str, datetime]) -> set[str]:
        await self._lock("request", requests)
        fresh = [request_id for request_id in requests if request_id not in self.tables.claimed]
        for request_id in fresh:
            self._put(self.tables.claimed, request_id, requests[request_id])
        await self.tables.pause()
        return set(fresh)

    async def open_leases(self, ids: Collection[str]) -> dict[str, Lease]:
        leases = self.tables.leases
        return {name: leases[name] for name in ids if name in leases and not leases[name].closed_at}

    async def spend(self, amounts: Mapping[str, int]) -> None:
        for lease_id, amount in amounts.items():
            lease = self.tables.leases[lease_id]
            self._change(lease, spent=lease.spent + amount)

    async def keep(self, payments: Sequence[Payment]) -> None:
        self._payments += payments

    async def count_spending(self, sums: Mapping[KeyMonth, int]) -> None:
        for key, amount in sums.items():
            self._put(self.tables.spending, key, self.tables.spending.get(key, 0) + amount)

    async def add_up(self, sums: Mapping[SumKey, Sequence[int]]) -> None:
        for key, (_, nano_credits, *_) in sums.items():
            if key.step is Step.HOUR:
                self._summed[key.account_id] += nano_credits

    async def bill(self, bills: Collection[Bill]) -> None:
        for bill in bills:
            self._billed[bill.account_id] += bill.charged

    async def set_aside(self, unrated: Sequence[Unrated]) -> None:
        self._aside += unrated


def _restore(table: dict[Key, Value], key: Key, value: Value) -> None:
    if value is _MISSING:
        del table[key]
    else:
        table[key] = value
