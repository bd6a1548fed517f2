"""The settings of the credits service."""

from decimal import Decimal
from typing import Annotated

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from dozen_chassis.settings import AdmittedSettings

_Currency = Annotated[str, Field(pattern="^[a-z]{3}$")]
_Rate = Annotated[Decimal, Field(gt=0, max_digits=15, decimal_places=9)]


class Settings(AdmittedSettings):
    """Settings of the credits service."""

    price_attempts: int = Field(
        2000,
        description="Deliveries after which usage with an unknown price is set aside; so many take a day.",
    )
    lease_seconds: float = Field(60, gt=0, description="How long a lease lasts after its holder's last call.")
    longest_request_seconds: float = Field(
        1260,
        ge=0,
        description="How long an expired lease is kept: a minute for requests to begin, 20 for them to end.",
    )
    low_balance_nano_credits: int = Field(
        1_000_000_000, description="A balance that falls below this is announced as low; 0 announces none."
    )
    stripe_webhook_secret: SecretStr | None = Field(
        None, min_length=1, description="Secret of the endpoint at Stripe; none takes no payments."
    )
    stripe_credits: dict[_Currency, _Rate] = Field(
        {},
        validate_default=True,
        description='Credits for the smallest unit of each currency, such as {"usd": "0.01"}.',
    )

    @field_validator("stripe_credits")
    @classmethod
    def _has_rates(cls, rates: dict[str, Decimal], given: ValidationInfo) -> dict[str, Decimal]:
        if given.data.get("stripe_webhook_secret") and not rates:
            raise ValueError("payments need at least one currency")
        return rates
