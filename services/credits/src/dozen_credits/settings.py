"""The settings of the credits service."""

from pydantic import Field

from dozen_chassis.settings import AdmittedSettings


class Settings(AdmittedSettings):
    """Settings of the credits service."""

    price_attempts: int = Field(
        2000,
        description="Deliveries after which usage with an unknown price is set aside; so many take a day.",
    )
    lease_seconds: float = Field(60, gt=0, description="How long a lease lasts after its holder's last call.")
    longest_request_seconds: float = Field(
        1200,
        ge=0,
        description="How long an expired lease is kept for the requests that may still be running.",
    )
    low_balance_nano_credits: int = Field(
        1_000_000_000, description="A balance that falls below this is announced as low; 0 announces none."
    )
