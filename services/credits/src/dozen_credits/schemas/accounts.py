"""Bodies of accounts."""

from typing import Literal, Self

from pydantic import BaseModel

from dozen_credits.domain.accounts import Account, credits_text


class Credits(BaseModel):
    """Answer of `GET /v1/credits`."""

    object: Literal["credits"] = "credits"
    account_id: str
    available_nano_credits: int
    """What is not spent yet, in leases of the gateway or not."""
    available: str
    """In credits, exactly."""
    updated_at: int

    @classmethod
    def of(cls, account: Account) -> Self:
        """Show the balance of an account."""
        available = account.balance.total
        return cls(
            account_id=account.id,
            available_nano_credits=available,
            available=credits_text(available),
            updated_at=int(account.updated_at.timestamp()),
        )
