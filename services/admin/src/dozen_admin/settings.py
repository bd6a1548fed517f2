"""The settings of the admin service."""

from datetime import timedelta

from pydantic import Field, SecretStr

from dozen_chassis.settings import ServiceSettings


class Settings(ServiceSettings):
    """Settings of the admin service."""

    admin_password: SecretStr = Field(
        min_length=12, description="Password of the user `admin`; changing it ends all sessions."
    )
    service_addresses: dict[str, str] = Field(
        description="JSON object: the services that are watched, to the base URL of each."
    )
    keep_recent: timedelta = Field(
        timedelta(days=30),
        ge=timedelta(days=15),  # longer than an event can be delivered again, so that none is counted twice
        description="Charges and finished tasks are kept for so long; totals by hour stay.",
    )
    keep_audit: timedelta = Field(
        timedelta(days=365), description="Entries of the audit log are kept for so long."
    )
