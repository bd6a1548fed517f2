"""The settings of the models service."""

from datetime import timedelta

from pydantic import Field, FilePath

from dozen_chassis.settings import AdmittedSettings


class Settings(AdmittedSettings):
    """Settings of the models service."""

    seed_file: FilePath | None = Field(
        None, description="YAML file that the catalogue is made equal to at start; none leaves it as it is."
    )
    probe_interval: timedelta = Field(
        timedelta(seconds=2),
        gt=timedelta(0),
        description="Time between two probes of a deployment, and how long each may take.",
    )
    health_history: timedelta = Field(
        timedelta(days=90), description="Changes of health are forgotten after so long."
    )
