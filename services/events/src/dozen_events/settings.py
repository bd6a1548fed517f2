"""The settings of the events service."""

from datetime import timedelta

from pydantic import Field

from dozen_chassis.settings import AdmittedSettings


class Settings(AdmittedSettings):
    """Settings of the events service."""

    retention: timedelta = Field(timedelta(days=30), description="How long events are kept.")
    max_streams: int = Field(1000, description="Streams open at once in this process.")
    max_account_streams: int = Field(20, description="Streams of one account open at once in this process.")
