"""The books of an account, and the transfers between them."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from dozen_credits.domain.accounts import Balance


class Book(StrEnum):
    """Where an account's credits can be."""

    ISSUED = "issued"
    AVAILABLE = "available"
    LEASED = "leased"
    REVENUE = "revenue"
    WRITTEN_OFF = "written_off"


class Kind(StrEnum):
    """Why credits move."""

    GRANT = "grant"
    ADJUSTMENT = "adjustment"
    EXPIRY = "expiry"
    LEASE = "lease"
    RELEASE = "release"
    CHARGE = "charge"
    WRITE_OFF = "write_off"
    REFUND = "refund"


@dataclass(frozen=True, slots=True)
class Transfer:
    """Takes from one book of an account and gives to another."""

    account_id: str
    kind: Kind
    debit: Book
    credit: Book
    nano_credits: int
    reference: str
    """The id of the request, of the lease, or of the posting."""


class Alert(StrEnum):
    """What a balance has come to."""

    LOW = "low"
    EXHAUSTED = "exhausted"


def alerts(
    before: Mapping[str, Balance], after: Mapping[str, Balance], low: int
) -> list[tuple[Alert, Balance]]:
    """Name the balances that fell below a limit and those of which nothing is left, each as it falls."""
    found = []
    for account_id, balance in sorted(after.items()):
        had = before[account_id].total
        if had >= low > balance.total:
            found.append((Alert.LOW, balance))
        if had > 0 == balance.total:
            found.append((Alert.EXHAUSTED, balance))
    return found
