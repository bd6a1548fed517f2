"""Payments at a provider: what they top up, and what is taken back as they are given back."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dozen_credits.domain.ledger import Kind
from dozen_credits.domain.postings import Posting


@dataclass(frozen=True, slots=True)
class TopUp:
    """A payment was made for an account."""

    payment: str
    """The provider's name and its id of the payment, such as `stripe:pi_1`."""
    account_id: str
    currency: str
    amount: int
    """In the currency's smallest unit."""


@dataclass(frozen=True, slots=True)
class Reversal:
    """So much of a payment has been given back until now."""

    payment: str
    given_back: int
    collected: int
    """The whole payment, in the same unit."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is known of a payment."""

    payment: str
    account_id: str | None = None
    """None until the top-up is known, which may be told after what was given back of it."""
    currency: str | None = None
    amount: int | None = None
    nano_credits: int = 0
    collected: int = 0
    given_back: int = 0

    @property
    def provider(self) -> str:
        """The name of the provider."""
        return self.payment.partition(":")[0]

    @property
    def reversed(self) -> int:
        """What of the top-up was given back, in nano-credits: all of it with all of the payment."""
        if not self.given_back:
            return 0
        return self.nano_credits * min(self.given_back, self.collected) // self.collected

    def topped_up(self, top_up: TopUp, nano_credits: int) -> "Receipt":
        """Give the receipt after the top-up."""
        return replace(
            self,
            account_id=top_up.account_id,
            currency=top_up.currency,
            amount=top_up.amount,
            nano_credits=nano_credits,
        )

    def grant(self) -> Posting:
        """Give what the top-up posts."""
        assert self.account_id is not None
        reason = f"payment by {self.provider}"
        return Posting(Kind.GRANT, self.payment, self.account_id, self.nano_credits, reason, self.provider)

    def taking_back(self, nano_credits: int) -> Posting:
        """Give what is posted for what was given back until now."""
        assert self.account_id is not None
        return Posting(
            Kind.ADJUSTMENT,
            f"{self.payment}:given-back:{self.given_back}",
            self.account_id,
            -nano_credits,
            f"payment {self.payment} was given back",
            self.provider,
        )


def worth(top_up: TopUp, rates: Mapping[str, int]) -> int | None:
    """Give the nano-credits that a payment buys; None where its currency buys none."""
    rate = rates.get(top_up.currency)
    return None if rate is None else top_up.amount * rate
