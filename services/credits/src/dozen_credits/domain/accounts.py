"""Accounts and amounts."""

import re
from dataclasses import dataclass
from datetime import datetime

NANO = 1_000_000_000
"""Nano-credits of one credit."""
LARGEST_AMOUNT = 1_000_000 * NANO
"""Of one grant or charge; what is more is a mistake, and thousands of it fit into a balance."""

_ACCOUNT_ID = re.compile(r"[a-z0-9]{1,32}\Z")


@dataclass(frozen=True, slots=True)
class Balance:
    """What an account has: what is available, and what leases hold; a greater version is newer."""

    account_id: str
    available: int
    leased: int
    version: int

    @property
    def total(self) -> int:
        """All that the account has not spent."""
        return self.available + self.leased


@dataclass(frozen=True, slots=True)
class Account:
    """A holder of credits."""

    id: str
    name: str
    balance: Balance
    created_at: datetime
    updated_at: datetime


def is_account_id(text: str) -> bool:
    """Tell whether a text can be the id of an account."""
    return _ACCOUNT_ID.match(text) is not None


def is_text(text: str, most: int, *, least: int = 0) -> bool:
    """Tell whether the database can keep a text, and whether its length is within limits."""
    return least <= len(text) <= most and "\0" not in text


def credits_text(nano_credits: int) -> str:
    """Write an amount in credits, exactly, such as `9.998765432`."""
    whole, fraction = divmod(abs(nano_credits), NANO)
    return f"{'-' if nano_credits < 0 else ''}{whole}.{fraction:09}"
