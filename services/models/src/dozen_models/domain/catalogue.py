"""What is offered: models, where they are served, and what they cost."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from dozen_models.domain.health import Health, HealthState

MODEL_ID = r"[A-Za-z0-9][A-Za-z0-9._:@-]*(/[A-Za-z0-9][A-Za-z0-9._:@-]*)*"
MODEL_ID_LENGTH = 128


@dataclass(frozen=True, slots=True)
class Upstream:
    """The inference server behind a deployment."""

    format: str = "openai"
    url: str = ""
    """Base URL without the version; empty where the server is in the pod of the service."""
    model: str = ""
    """What the model is called there; empty where the name is the same."""
    secret: str = ""
    """Name of the secret with the provider's key."""
    max_requests: int = 0
    """At once, from one process; zero where the service decides."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One place where a model is served."""

    id: str
    service: str
    address: str
    health_url: str
    """Empty where it is not probed: its health is what its callers see."""
    priority: int
    weight: int
    upstream: Upstream = Upstream()


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a model is and where it is served; the deployment to try first comes first."""

    id: str
    owned_by: str
    capabilities: tuple[str, ...]
    context_length: int
    deployments: tuple[Deployment, ...]
    fallbacks: tuple[str, ...] = ()
    """Models that answer in its place, the one to try first in front."""
    cache_seconds: int = 0
    """Zero where only a request decides whether its answer is cached."""
    content_filter: bool = False


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


Scope = Collection[str] | None
"""Ids of the models that a key may use; None where it may use all."""


def is_model_id(text: str) -> bool:
    """Tell whether a text could be the id of a model."""
    return len(text) <= MODEL_ID_LENGTH and re.fullmatch(MODEL_ID, text) is not None


def is_in_scope(model_id: str, scope: Scope) -> bool:
    """Tell whether a key may use a model, as the gateway does."""
    return scope is None or model_id in scope


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


def find_circle(fallbacks: Mapping[str, Sequence[str]]) -> list[str]:
    """Give a circle in which models fall back to each other, its first model again at its end, or nothing."""
    done: set[str] = set()

    def visit(model: str, path: list[str]) -> list[str]:
        if model in path:
            return [*path[path.index(model) :], model]
        if model in done:
            return []
        for fallback in fallbacks.get(model, ()):
            if circle := visit(fallback, [*path, model]):
                return circle
        done.add(model)
        return []

    for model in fallbacks:
        if circle := visit(model, []):
            return circle
    return []
