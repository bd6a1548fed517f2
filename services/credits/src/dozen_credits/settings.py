"""The settings of the credits service."""

from pydantic import Field

from dozen_chassis.settings import AdmittedSettings


class Settings(AdmittedSettings):
    """Settings of the credits service."""

    price_attempts: int = Field(
        2000,
        description="Deliveries after which usage with an unknown price is set aside; so many take a day.",
    )
