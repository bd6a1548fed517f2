"""Accounts and what they have left; all amounts are nano-credits."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Account:
    """An account, with its balance and all that it has been charged."""

    id: str
    name: str = ""
    opened_at: datetime | None = None
    available: int = 0
    leased: int = 0
    """What the gateway holds for requests and has not spent."""
    low_below: int = 0
    """The balance below which the account was last announced as low; 0 where it never was."""
    charged: int = 0
    requests: int = 0

    @property
    def balance(self) -> int:
        """Give all that the account has; leases move credits between its two parts untold."""
        return self.available + self.leased

    @property
    def alert(self) -> str:
        """Say `low` or `exhausted` of an account that was announced as such and has no more since."""
        if self.balance >= self.low_below:
            return ""
        return "low" if self.balance > 0 else "exhausted"


@dataclass(frozen=True, slots=True)
class Balance:
    """An account's balance; the one with the highest version is the newest."""

    account: str
    available: int
    version: int
    leased: int = 0
