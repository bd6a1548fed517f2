"""How deployments are, as their health URLs say."""

from dataclasses import dataclass
from datetime import datetime
from enum import Enum

FAILURES = 2
"""So many in a row make a deployment unhealthy; one may be a hiccup."""


class Health(Enum):
    """What is known of a deployment, or of a model."""

    UNKNOWN = "unknown"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class HealthState:
    """How a deployment is, why, and since when."""

    health: Health = Health.UNKNOWN
    reason: str = ""
    observed_at: datetime | None = None


class Outcome(Enum):
    """How a probe ended."""

    OK = "ok"
    REFUSED = "refused"
    TIMEOUT = "timeout"
    STATUS = "status"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a probe found, and how to say so to people."""

    outcome: Outcome
    reason: str


def judge(answer: Answer, failures: int) -> Health | None:
    """Say what an answer makes of a deployment; None where it is too early to say.

    `failures` counts the failures in a row, this one included. A refused connection is no hiccup: nobody
    listens any more.
    """
    if answer.outcome is Outcome.OK:
        return Health.HEALTHY
    if answer.outcome is Outcome.REFUSED or failures >= FAILURES:
        return Health.UNHEALTHY
    return None
