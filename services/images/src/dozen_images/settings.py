"""The settings of the images service."""

from pydantic import Field

from dozen_chassis.settings import AdmittedSettings
from dozen_inference.local import spare_cores


class Settings(AdmittedSettings):
    """Settings of the images service."""

    model_threads: int = Field(
        default_factory=spare_cores,
        description="Threads that the model computes with; one less than the cores.",
    )
    max_requests: int = Field(16, description="Requests that may wait for the model before more are refused.")
    max_image_bytes: int = Field(20 * 1024 * 1024, description="Largest upload that is accepted.")
    max_image_pixels: int = Field(40_000_000, description="Most pixels that are accepted.")
