"""The domain in the words of the contracts."""

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from dozen.models.v1 import models_pb2
from dozen.models.v1.models_events_pb2 import DeploymentHealthChanged
from dozen_models.domain.catalogue import ModelCard, Price
from dozen_models.domain.health import Health, HealthState

HEALTH_NUMBERS = {
    Health.UNKNOWN: models_pb2.HEALTH_UNSPECIFIED,
    Health.HEALTHY: models_pb2.HEALTH_HEALTHY,
    Health.UNHEALTHY: models_pb2.HEALTH_UNHEALTHY,
}


def model_message(card: ModelCard, created_at: datetime) -> models_pb2.Model:
    """Write a model for events and answers."""
    return models_pb2.Model(
        id=card.id,
        owned_by=card.owned_by,
        capabilities=card.capabilities,
        context_length=card.context_length,
        created_at=timestamp(created_at),
        fallbacks=card.fallbacks,
        cache_seconds=card.cache_seconds,
        content_filter=card.content_filter,
        deployments=[
            models_pb2.Deployment(
                id=deployment.id,
                model_id=card.id,
                service=deployment.service,
                address=deployment.address,
                health_url=deployment.health_url,
                priority=deployment.priority,
                weight=deployment.weight,
                upstream=models_pb2.Upstream(
                    format=deployment.upstream.format,
                    url=deployment.upstream.url,
                    model=deployment.upstream.model,
                    secret=deployment.upstream.secret,
                    max_requests=deployment.upstream.max_requests,
                ),
            )
            for deployment in card.deployments
        ],
    )


def price_message(model_id: str, price: Price) -> models_pb2.Price:
    """Write a price for events and answers."""
    return models_pb2.Price(
        id=price.id,
        model_id=model_id,
        nano_credits=price.nano_credits,
        effective_from=timestamp(price.effective_from),
    )


def timestamp(moment: datetime) -> Timestamp:
    """Write a moment for events and answers."""
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def health_message(deployment_id: str, model_id: str, state: HealthState) -> DeploymentHealthChanged:
    """Write a change of health for events."""
    assert state.observed_at is not None, "what is known was observed"
    return DeploymentHealthChanged(
        deployment_id=deployment_id,
        model_id=model_id,
        health=HEALTH_NUMBERS[state.health],
        reason=state.reason,
        observed_at=timestamp(state.observed_at),
    )
