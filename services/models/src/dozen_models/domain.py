"""Models, their prices and their health, and the rules by which these change."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum

MODEL_ID = r"[A-Za-z0-9][A-Za-z0-9._:@-]*(/[A-Za-z0-9][A-Za-z0-9._:@-]*)*"
MODEL_ID_LENGTH = 128
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


@dataclass(frozen=True, slots=True)
class Deployment:
    """One place where a model is served."""

    id: str
    service: str
    address: str
    health_url: str
    priority: int
    weight: int


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model is and where it is served; the deployment to try first comes first."""

    id: str
    owned_by: str
    capabilities: tuple[str, ...]
    context_length: int
    deployments: tuple[Deployment, ...]


@dataclass(frozen=True, slots=True)
class Price:
    """What one unit of each kind costs, in nano-credits; it never changes."""

    id: str
    nano_credits: Mapping[str, int]
    effective_from: datetime


@dataclass(frozen=True, slots=True)
class Model:
    """An entry of the catalogue."""

    card: ModelCard
    created_at: datetime
    price: Price
    states: Mapping[str, HealthState] = field(default_factory=dict)
    """By the id of the deployment."""

    @property
    def health(self) -> Health:
        """Healthy where one deployment is, unhealthy where all are."""
        found = {state.health for state in self.states.values()}
        if Health.HEALTHY in found:
            return Health.HEALTHY
        return Health.UNHEALTHY if found == {Health.UNHEALTHY} else Health.UNKNOWN


@dataclass(frozen=True, slots=True)
class Offer:
    """A model as it should be in the catalogue, and what it should cost."""

    card: ModelCard
    nano_credits: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Changes:
    """What makes a catalogue equal to what is offered."""

    retired: list[Model]
    registered: list[ModelCard]
    priced: list[Offer]


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


@dataclass(frozen=True, slots=True)
class Target:
    """A deployment that is probed, with the health that is known of it."""

    deployment_id: str
    model_id: str
    health: Health


def is_model_id(text: str) -> bool:
    """Tell whether a text could be the id of a model."""
    return len(text) <= MODEL_ID_LENGTH and re.fullmatch(MODEL_ID, text) is not None


def compare(known: Iterable[Model], offers: Iterable[Offer]) -> Changes:
    """Find what is new, what is changed and what is gone."""
    models = {model.card.id: model for model in known}
    changes = Changes([], [], [])
    for offer in offers:
        model = models.pop(offer.card.id, None)
        if model is None or model.card != offer.card:
            changes.registered.append(offer.card)
        if model is None or model.price.nano_credits != offer.nano_credits:
            changes.priced.append(offer)
    changes.retired.extend(models.values())
    return changes


def targets(models: Iterable[Model]) -> dict[str, list[Target]]:
    """Group deployments by the URL that says how they are."""
    grouped: dict[str, list[Target]] = {}
    for model in models:
        for deployment in model.card.deployments:
            target = Target(deployment.id, model.card.id, model.states[deployment.id].health)
            grouped.setdefault(deployment.health_url, []).append(target)
    return grouped


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
