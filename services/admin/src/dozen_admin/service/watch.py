"""How the services are, asked every few seconds."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from prometheus_client import Gauge

from dozen_admin.domain.watch import Answer, ServiceHealth

READY = Gauge("dozen_admin_service_ready", "1 where a service answers that it is ready.", ["service"])

_STALE = timedelta(minutes=1)


class Probe(Protocol):
    """Asks services how they are."""

    async def ask(self, address: str) -> Answer:
        """Ask the service at a base URL; give an answer in any case, in bounded time."""
        ...


class Answers(Protocol):
    """The last answer of each service, shared by all replicas."""

    async def note(self, answers: Mapping[str, Answer], now: datetime) -> None:
        """Keep answers; those that say what the last one said keep its `since`."""
        ...

    async def latest(self) -> list[ServiceHealth]:
        """Give the last answers."""
        ...


class ServiceWatch:
    """Knows how the services are."""

    def __init__(
        self,
        addresses: Mapping[str, str],
        probe: Probe,
        answers: Answers,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._addresses = addresses
        self._probe = probe
        self._answers = answers
        self._clock = clock

    async def look(self) -> None:
        """Ask all services at once; one that does not answer holds up nobody's next question for long."""
        answers = await asyncio.gather(*map(self._probe.ask, self._addresses.values()))
        found = dict(zip(self._addresses, answers, strict=True))
        for service, answer in found.items():
            READY.labels(service).set(answer.status == "ready")
        await self._answers.note(found, self._clock())

    async def services(self) -> Sequence[ServiceHealth]:
        """Give the health of each service, in the order of the settings."""
        latest = {health.service: health for health in await self._answers.latest()}
        oldest = self._clock() - _STALE
        return [self._believed(service, latest.get(service), oldest) for service in self._addresses]

    @staticmethod
    def _believed(service: str, health: ServiceHealth | None, oldest: datetime) -> ServiceHealth:
        if health is None or health.checked_at is None:
            return ServiceHealth(service, "unknown", "not asked yet")
        if health.checked_at < oldest:
            return ServiceHealth(service, "unknown", "not asked lately", health.checked_at, health.checked_at)
        return health
