"""How the services of the platform are."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Answer:
    """How a service answers: `ready`, `degraded` (it works, but something is missing) or `down`."""

    status: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """How a service answered when it was last asked, and since when; `unknown` where it never was."""

    service: str
    status: str
    detail: str = ""
    since: datetime | None = None
    checked_at: datetime | None = None
