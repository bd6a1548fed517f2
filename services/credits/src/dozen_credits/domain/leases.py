"""Leases, and how usage is paid from them."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import StrEnum
from typing import NamedTuple

from dozen_credits.domain.accounts import Balance
from dozen_credits.domain.ledger import Book, Kind, Transfer
from dozen_credits.domain.metering import Charge, Usage

SHARE = 8
"""A holder gets at most one part in so many of what is available, beyond what it needs."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A part of an account's balance that one holder may promise to requests."""

    id: str
    account_id: str
    key_id: str
    """The key that alone may use it; empty where all keys of the account may."""
    holder: str
    nano_credits: int
    spent: int
    returned: int
    expires_at: datetime
    closed_at: datetime | None

    @property
    def left(self) -> int:
        """What is still in it."""
        return self.nano_credits - self.spent - self.returned

    def pays(self, usage: Usage) -> bool:
        """Tell whether usage may be taken from it."""
        return self.account_id == usage.account_id and self.key_id in ("", usage.key_id)


class Period(StrEnum):
    """What charges count against a budget: those of the calendar month (UTC), or all."""

    MONTH = "month"
    TOTAL = "total"


@dataclass(frozen=True, slots=True)
class Budget:
    """What a key may spend of its account's balance."""

    key_id: str
    nano_credits: int
    period: Period


@dataclass(frozen=True, slots=True)
class LeaseWish:
    """What a holder asks for: it has no use for less than it needs."""

    account_id: str
    holder: str
    needed: int
    wanted: int
    request_token: str
    budget: Budget | None = None
    """Given, the lease is one of this key's own."""

    @property
    def key_id(self) -> str:
        """The key whose lease it is; empty for the account's."""
        return self.budget.key_id if self.budget else ""


@dataclass(frozen=True, slots=True)
class Payment:
    """Where a charge is taken from: the lease of its request, then what is available, then nobody pays."""

    charge: Charge
    leased: int
    available: int
    written_off: int

    def transfers(self) -> Iterable[Transfer]:
        """Give what is to be posted."""
        parts = (
            (Kind.CHARGE, Book.LEASED, self.leased),
            (Kind.CHARGE, Book.AVAILABLE, self.available),
            (Kind.WRITE_OFF, Book.WRITTEN_OFF, self.written_off),
        )
        usage = self.charge.usage
        for kind, debit, amount in parts:
            if amount:
                yield Transfer(usage.account_id, kind, debit, Book.REVENUE, amount, usage.request_id)


class KeyMonth(NamedTuple):
    """What the charges of a key are summed by."""

    account_id: str
    key_id: str
    month: date


def spending(charges: Iterable[Charge]) -> Counter[KeyMonth]:
    """Add up charges by account, key and the month (UTC) in which requests finished."""
    sums: Counter[KeyMonth] = Counter()
    for charge in charges:
        usage = charge.usage
        month = usage.finished_at.astimezone(UTC).date().replace(day=1)
        sums[KeyMonth(usage.account_id, usage.key_id, month)] += charge.nano_credits
    return sums


def addition(available: int, needed: int, wanted: int) -> int:
    """Give how much moves into a lease: what is needed, or up to what is wanted while others have enough."""
    if needed == 0 or needed > available:
        return 0
    return max(needed, min(wanted, available // SHARE))


def pay(
    charges: Iterable[Charge], balances: Mapping[str, Balance], leases: Mapping[str, Lease]
) -> list[Payment]:
    """Take charges from the open leases of their requests and from balances; none falls below zero."""
    available = {account_id: balance.available for account_id, balance in balances.items()}
    left = {lease.id: lease.left for lease in leases.values()}
    payments = []
    for charge in charges:
        usage, cost = charge.usage, charge.nano_credits
        from_lease = 0
        lease = leases.get(usage.lease_id)
        if lease and lease.pays(usage):
            from_lease = min(cost, left[lease.id])
            left[lease.id] -= from_lease
        from_available = min(cost - from_lease, available[usage.account_id])
        available[usage.account_id] -= from_available
        payments.append(Payment(charge, from_lease, from_available, cost - from_lease - from_available))
    return payments
