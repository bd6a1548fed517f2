"""How deployments are, as the processes that send requests to them see it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from dozen_models.domain.health import Health

TRUSTED_SECONDS = 10.0
"""How long a sighting tells anything; there is one a second."""


class Breaker(Enum):
    """Whether an observer lets requests pass to a deployment."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(frozen=True, slots=True)
class Observation:
    """What one observer says of one deployment."""

    observer: str
    breaker: Breaker
    requests: int = 0
    """At the deployment now."""
    ended: int = 0
    """Since its last observation."""
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Count:
    """Requests that ended, and those of them that failed."""

    heard_at: float
    ended: int
    failed: int


@dataclass(frozen=True, slots=True)
class Sighting:
    """What one observer said of one deployment lately; times are monotonic."""

    breaker: Breaker
    heard_at: float
    requests: int
    counts: tuple[Count, ...]
    """Of the last seconds; while the breaker is open, of those before it opened."""

    @property
    def matters(self) -> bool:
        """Tell whether the observer sends requests, or has just ceased to."""
        return self.breaker is not Breaker.CLOSED or self.requests > 0 or bool(self.counts)


Sightings = Mapping[str, Sighting]
"""Of one deployment, by the observer."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What follows from sightings, and how to say so to people."""

    health: Health
    reason: str


def see(known: Sightings, observation: Observation, now: float) -> Sightings:
    """Take an observation over, and forget observers that have fallen silent."""
    lately = {who: one for who, one in known.items() if now - one.heard_at < TRUSTED_SECONDS}
    before = lately.get(observation.observer)
    counts = before.counts if before else ()
    if before is None or before.breaker is not Breaker.OPEN:
        counts = tuple(one for one in counts if now - one.heard_at < TRUSTED_SECONDS)
    if observation.ended > 0:
        counts = (*counts, Count(now, observation.ended, observation.failed))
    sighting = Sighting(observation.breaker, now, observation.requests, counts)
    return {**lately, observation.observer: sighting}


def find(known: Sightings) -> Finding | None:
    """Say what the sightings make of a deployment; None where they say nothing.

    It is unhealthy where every breaker is open of those who send it requests, and nothing is known where
    it is being tried again.
    """
    sightings = [one for one in known.values() if one.matters]
    breakers = {one.breaker for one in sightings}
    ended = sum(count.ended for one in sightings for count in one.counts)
    failed = sum(count.failed for one in sightings for count in one.counts)
    if breakers == {Breaker.OPEN}:
        reason = f"{failed} of {ended} requests failed" if failed else "its callers let no request pass"
        return Finding(Health.UNHEALTHY, reason)
    if Breaker.HALF_OPEN in breakers:
        return Finding(Health.UNKNOWN, "it is being tried again")
    if failed < ended:
        return Finding(Health.HEALTHY, f"{ended - failed} of {ended} requests succeeded")
    return None
