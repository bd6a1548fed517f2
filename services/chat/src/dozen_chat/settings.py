"""The settings of the chat service."""

from datetime import timedelta

from pydantic import Field

from dozen_inference.serving import CompletionSettings


class Settings(CompletionSettings):
    """Settings of the chat service."""

    task_concurrency: int = Field(2, description="Tasks that are worked on side by side.")
    state_retention: timedelta = Field(
        timedelta(days=30),
        description="How long responses are kept, and conversations after they were last used.",
    )
