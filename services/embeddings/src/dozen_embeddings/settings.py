"""The settings of the embeddings service."""

from datetime import timedelta

from pydantic import Field

from dozen_chassis.settings import AdmittedSettings
from dozen_inference.local import spare_cores


class Settings(AdmittedSettings):
    """Settings of the embeddings service."""

    model_threads: int = Field(
        default_factory=spare_cores,
        description="Threads that the model computes with; one less than the cores.",
    )
    max_requests: int = Field(64, description="Requests that may wait for the model before more are refused.")
    max_request_tokens: int = Field(300_000, description="Tokens of all texts of one request.")
    cache_vectors: int = Field(200_000, description="Vectors that are remembered, 1.6 kB each.")
    cache_unused: timedelta = Field(
        timedelta(days=30), description="Vectors unused for so long are forgotten."
    )
