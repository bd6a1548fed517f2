"""What models tells of the catalogue."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from dozen.models.v1.models_events_pb2 import DeploymentHealthChanged, ModelRegistered, PriceChanged
from dozen.models.v1.models_pb2 import HEALTH_HEALTHY, HEALTH_UNHEALTHY
from dozen_admin.domain.catalogue import Deployment, Health, Model, Price
from dozen_admin.handlers.deliveries import time_of
from dozen_admin.service.intake import IntakeService
from dozen_chassis.events import Delivery

_HEALTH: Mapping[int, str] = {HEALTH_HEALTHY: "healthy", HEALTH_UNHEALTHY: "unhealthy"}


async def on_model_registered(event: ModelRegistered, delivery: Delivery, intake: IntakeService) -> None:
    """Take a model."""
    model = event.model
    await intake.model_registered(
        Model(
            id=model.id,
            owned_by=model.owned_by,
            capabilities=list(model.capabilities),
            context_length=model.context_length,
            deployments=[
                Deployment(one.id, model.id, one.service, one.address, one.priority, one.weight)
                for one in model.deployments
            ],
        ),
        delivery.published_at,
    )


async def on_price_changed(event: PriceChanged, delivery: Delivery, intake: IntakeService) -> None:
    """Take a price."""
    price = event.price
    effective_from = time_of(price.effective_from, delivery)
    await intake.price_changed(Price(price.id, price.model_id, dict(price.nano_credits), effective_from))


async def on_deployment_health_changed(
    event: DeploymentHealthChanged, delivery: Delivery, intake: IntakeService
) -> None:
    """Take a deployment's health."""
    health = _HEALTH.get(event.health, "unknown")
    observed_at = time_of(event.observed_at, delivery)
    await intake.health_changed(Health(event.deployment_id, health, event.reason, observed_at))


HANDLERS: Mapping[type[Message], Callable[[Any, Delivery, Any], Awaitable[None]]] = {
    ModelRegistered: on_model_registered,
    PriceChanged: on_price_changed,
    DeploymentHealthChanged: on_deployment_health_changed,
}
