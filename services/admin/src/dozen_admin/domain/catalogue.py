"""Models, where they are served, how that is, and what they cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Deployment:
    """A place where a model is served; `health` is `healthy`, `unhealthy` or `unknown`."""

    id: str
    model: str
    service: str
    address: str
    priority: int
    weight: int
    health: str = "unknown"
    reason: str = ""
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """How a deployment was at a moment."""

    deployment: str
    health: str
    reason: str
    observed_at: datetime


@dataclass(frozen=True, slots=True)
class Price:
    """What one unit of each kind costs in nano-credits, from a moment on."""

    id: str
    model: str
    nano_credits: Mapping[str, int]
    effective_from: datetime


@dataclass(frozen=True, slots=True)
class Model:
    """An entry of the catalogue with its price in force."""

    id: str
    owned_by: str
    capabilities: Sequence[str]
    context_length: int
    deployments: Sequence[Deployment] = ()
    prices: Mapping[str, int] | None = None
