"""Invoices by the month in which requests finished, and statements of what moved a balance."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

from dozen_credits.domain.leases import Payment

_MONTH = re.compile(r"[12][0-9]{3}-(?:0[1-9]|1[0-2])\Z")


@dataclass(frozen=True, slots=True, order=True)
class Month:
    """A calendar month in UTC."""

    start: datetime

    @classmethod
    def of(cls, time: datetime) -> Self:
        """Give the month of a time."""
        return cls(time.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0))

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read a month such as `2026-11`."""
        return cls(datetime.strptime(f"{text}+0000", "%Y-%m%z")) if _MONTH.match(text) else None

    @property
    def end(self) -> datetime:
        """The start of the next month."""
        year, month = divmod(self.start.year * 12 + self.start.month, 12)
        return self.start.replace(year=year, month=month + 1)

    def __str__(self) -> str:
        return f"{self.start:%Y-%m}"


@dataclass(frozen=True, slots=True)
class Line:
    """What was used of one model in one unit at one price."""

    model: str
    price_id: str
    unit: str
    quantity: int
    unit_price: int

    @property
    def amount(self) -> int:
        """What it costs."""
        return self.quantity * self.unit_price


@dataclass(frozen=True, slots=True)
class Invoice:
    """What the requests that finished in a month cost."""

    month: Month
    requests: int
    charged: int
    written_off: int
    refunded: int
    lines: tuple[Line, ...] = ()

    @property
    def paid(self) -> int:
        """What the account paid and did not get back."""
        return self.charged - self.written_off - self.refunded


class MovementKind(StrEnum):
    """Why a balance moved."""

    GRANT = "grant"
    TOP_UP = "top_up"
    ADJUSTMENT = "adjustment"
    REFUND = "refund"
    EXPIRY = "expiry"
    CHARGE = "charge"
    WRITE_OFF = "write_off"


@dataclass(frozen=True, slots=True)
class Movement:
    """Moves a balance: a posting, or all charges of a day for one month's usage."""

    time: datetime
    kind: MovementKind
    nano_credits: int
    """Below zero where it took credits away."""
    reference: str
    """The payment, the refunded request, else the posting; of charges the invoice that they belong to."""
    reason: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Statement:
    """What moved a balance in a month, in the order of days."""

    month: Month
    opening: int
    movements: tuple[Movement, ...]

    @property
    def totals(self) -> Mapping[MovementKind, int]:
        """The sum of each kind of movement that there is."""
        totals: Counter[MovementKind] = Counter()
        for movement in self.movements:
            totals[movement.kind] += movement.nano_credits
        return {kind: totals[kind] for kind in MovementKind if kind in totals}

    @property
    def closing(self) -> int:
        """The balance at the end."""
        return self.opening + sum(movement.nano_credits for movement in self.movements)


@dataclass(slots=True)
class Bill:
    """What is added to the invoice of an account and month."""

    account_id: str
    month: Month
    requests: int = 0
    charged: int = 0
    written_off: int = 0
    quantities: dict[tuple[str, str], dict[str, int]] = field(default_factory=dict)
    """By model and price, then by unit."""

    def add(self, payment: Payment) -> None:
        """Count a request with what it was charged."""
        charge = payment.charge
        self.requests += 1
        self.charged += charge.nano_credits
        self.written_off += payment.written_off
        sums = self.quantities.setdefault((charge.usage.model, charge.usage.price_id), {})
        for unit, quantity in charge.usage.quantities.items():
            if quantity:
                sums[unit] = sums.get(unit, 0) + quantity


def bills(payments: Iterable[Payment]) -> list[Bill]:
    """Add up requests by account and by the month in which they finished."""
    found: dict[tuple[str, int, int], Bill] = {}
    for payment in payments:
        usage = payment.charge.usage
        finished = usage.finished_at.astimezone(UTC)
        key = (usage.account_id, finished.year, finished.month)
        bill = found.get(key)
        if bill is None:
            bill = found[key] = Bill(usage.account_id, Month.of(finished))
        bill.add(payment)
    return list(found.values())
