"""The settings of the jobs service."""

from datetime import timedelta

from pydantic import Field, SecretStr

from dozen_chassis.settings import AdmittedSettings


class Settings(AdmittedSettings):
    """Settings of the jobs service."""

    gateway_address: str = Field(description="Host and port of the gateway's gRPC.")
    gateway_token: SecretStr = Field(description="Token that this service shows the gateway.")
    max_unfinished: int = Field(
        1000, ge=1, description="Unfinished jobs of one account before more are refused."
    )
    retention: timedelta = Field(
        timedelta(days=30), ge=timedelta(days=1), description="Jobs are deleted so long after they finished."
    )
