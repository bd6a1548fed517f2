"""The settings of the audio service."""

from pydantic import Field

from dozen_chassis.settings import AdmittedSettings
from dozen_inference.local import spare_cores


class Settings(AdmittedSettings):
    """Settings of the audio service."""

    model_threads: int = Field(
        default_factory=spare_cores,
        description="Threads that each model computes with; one less than the cores.",
    )
    max_requests: int = Field(
        16, description="Requests that may wait for each model before more are refused."
    )
    max_audio_bytes: int = Field(25 * 1024 * 1024, description="Largest recording that is accepted.")
    max_audio_seconds: float = Field(1500, description="Longest recording that is accepted.")
