"""What is probed, and what is not."""

from collections.abc import Iterable
from dataclasses import dataclass

from dozen_models.domain.catalogue import Model
from dozen_models.domain.health import Health


@dataclass(frozen=True, slots=True)
class Target:
    """A deployment, with the health that is known of it."""

    deployment_id: str
    model_id: str
    health: Health


def targets(models: Iterable[Model]) -> dict[str, list[Target]]:
    """Group deployments by the URL that says how they are; those without one are under the empty URL."""
    grouped: dict[str, list[Target]] = {}
    for model in models:
        for deployment in model.card.deployments:
            target = Target(deployment.id, model.card.id, model.states[deployment.id].health)
            grouped.setdefault(deployment.health_url, []).append(target)
    return grouped
