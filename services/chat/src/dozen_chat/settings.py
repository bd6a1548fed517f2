"""The settings of the chat service."""

from datetime import timedelta

from pydantic import Field

from dozen_chassis.settings import AdmittedSettings


class Settings(AdmittedSettings):
    """Settings of the chat service."""

    inference_url: str = Field(description="Base URL of the inference server, without `/v1`.")
    connect_seconds: float = Field(2, description="Longest wait for a connection to the inference server.")
    first_byte_seconds: float = Field(120, description="Longest wait for the first byte of a stream.")
    idle_seconds: float = Field(60, description="Longest pause within an answer.")
    answer_seconds: float = Field(600, description="Longest wait for an answer that is not streamed.")
    max_requests: int = Field(256, description="Requests at the inference server before more are refused.")
    max_choices: int = Field(1, description="Choices that one request may ask for.")
    task_concurrency: int = Field(2, description="Tasks that are worked on side by side.")
    log_retention: timedelta = Field(timedelta(days=30), description="How long the request log is kept.")
