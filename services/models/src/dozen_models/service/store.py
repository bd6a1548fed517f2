"""What all use cases need of the database."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self

from google.protobuf.message import Message

from dozen_models.domain.catalogue import Model

DEPLOYMENTS_CHANNEL = "deployments"
"""Where replicas tell each other that deployments, or their health, have changed."""


class Store(Protocol):
    """What both services do with the database."""

    def transaction(self) -> AbstractAsyncContextManager[Self]:
        """Give the same store in one transaction."""
        ...

    async def emit(self, event: Message) -> None:
        """Publish an event once this transaction has committed."""
        ...

    async def notify(self, channel: str, payload: str) -> None:
        """Tell all replicas once this transaction has committed."""
        ...

    async def models(self) -> list[Model]:
        """Give all models that are not retired, by id."""
        ...
