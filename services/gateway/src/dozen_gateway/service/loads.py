"""What the processes that call deployments tell of them, straight over NATS."""

import time
from collections.abc import AsyncIterator, Callable, Mapping

from prometheus_client import Gauge

from dozen_gateway.domain.loads import Observation
from dozen_gateway.domain.state import State

OBSERVED = Gauge("dozen_gateway_observed_deployments", "Deployments whose load is known or that have any.")

Heard = tuple[str, Mapping[str, Observation]]
"""Who observed, and what, by deployment."""


class LoadService:
    """Keeps the loads of deployments."""

    def __init__(
        self, state: State, *, longest_request: float, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Take a request of whose end nobody tells for one that has ended after `longest_request` seconds."""
        self._loads = state.loads
        self._longest_request = longest_request
        self._monotonic = monotonic

    async def follow(self, heard: AsyncIterator[Heard]) -> None:
        """Take over observations as they come."""
        async for observer, seen in heard:
            self._loads.observe(observer, seen, self._monotonic())

    async def sweep(self) -> None:
        """Drop what is too old."""
        self._loads.forget(self._monotonic(), self._longest_request)
        OBSERVED.set(len(self._loads.known))
