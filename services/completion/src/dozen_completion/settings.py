"""The settings of the completion service."""

from dozen_inference.serving import CompletionSettings


class Settings(CompletionSettings):
    """Settings of the completion service."""
