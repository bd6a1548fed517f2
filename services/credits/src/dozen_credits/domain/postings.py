"""Grants, adjustments and refunds, and the order in which what they gave is spent."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from dozen_credits.domain.accounts import LARGEST_AMOUNT, is_text
from dozen_credits.domain.ledger import Book, Kind, Transfer

PRIORITY = 50
"""Of what has no priority of its own."""
LOWEST_PRIORITY = 100


@dataclass(frozen=True, slots=True)
class Posting:
    """What is posted to an account by request, once per idempotency key."""

    kind: Kind
    idempotency_key: str
    account_id: str
    nano_credits: int
    """Below zero where it takes credits away."""
    reason: str
    actor: str = ""
    request_id: str | None = None
    """The request that is refunded."""
    expires_at: datetime | None = None
    priority: int = PRIORITY

    def is_well_formed(self) -> bool:
        """Tell whether everything is within limits."""
        return (
            0 < abs(self.nano_credits) <= LARGEST_AMOUNT
            and (self.nano_credits > 0 or self.kind is Kind.ADJUSTMENT)
            and is_text(self.idempotency_key, 255, least=1)
            and is_text(self.reason, 500, least=self.kind is not Kind.GRANT)
            and is_text(self.actor, 255, least=self.kind is not Kind.GRANT)
            and 0 <= self.priority <= LOWEST_PRIORITY
        )

    def repeats(self, made: "Posting") -> bool:
        """Tell whether this is the posting that was made with the same key, in everything."""
        return self == made

    def transfer(self, posting_id: str) -> Transfer:
        """Give what is to be posted."""
        outside = Book.REVENUE if self.kind is Kind.REFUND else Book.ISSUED
        books = (outside, Book.AVAILABLE) if self.nano_credits > 0 else (Book.AVAILABLE, outside)
        return Transfer(self.account_id, self.kind, *books, abs(self.nano_credits), posting_id)


@dataclass(frozen=True, slots=True)
class Lot:
    """What is left of credits that came in together."""

    posting_id: str
    account_id: str
    remaining: int


def expire(lots: Iterable[Lot], available: Mapping[str, int]) -> list[Lot]:
    """Give what of expired lots can be taken back: no more than is available, for leases are promised."""
    left = dict(available)
    taken = []
    for lot in lots:
        if amount := min(lot.remaining, left[lot.account_id]):
            left[lot.account_id] -= amount
            taken.append(replace(lot, remaining=amount))
    return taken
