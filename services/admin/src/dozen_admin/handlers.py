"""JetStream handlers of the admin service."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from dozen.credits.v1 import credits_pb2
from dozen.credits.v1.credits_events_pb2 import AccountOpened, CreditsGranted, UsageRated
from dozen.gateway.v1.gateway_events_pb2 import ApiKeyCreated, ApiKeyRevoked
from dozen.jobs.v1.jobs_events_pb2 import TaskFinished
from dozen.jobs.v1.jobs_pb2 import TASK_STATE_CANCELLED, TASK_STATE_FAILED, TASK_STATE_SUCCEEDED
from dozen.models.v1.models_events_pb2 import DeploymentHealthChanged, ModelRegistered, PriceChanged
from dozen.models.v1.models_pb2 import HEALTH_HEALTHY, HEALTH_UNHEALTHY
from dozen_admin.domain import Account, ApiKey, Balance, Charge, Deployment, Health, Model, Price, Task
from dozen_admin.service.intake import IntakeService
from dozen_chassis.events import Delivery

_HEALTH: Mapping[int, str] = {HEALTH_HEALTHY: "healthy", HEALTH_UNHEALTHY: "unhealthy"}
_STATES: Mapping[int, str] = {
    TASK_STATE_SUCCEEDED: "succeeded",
    TASK_STATE_FAILED: "failed",
    TASK_STATE_CANCELLED: "cancelled",
}
_MOST_ERROR = 1000


async def on_account_opened(event: AccountOpened, delivery: Delivery, intake: IntakeService) -> None:
    """Take an account."""
    account = event.account
    await intake.account_opened(
        Account(account.id, account.name, _time(account.created_at, delivery)), _balance(event.balance)
    )


async def on_credits_granted(event: CreditsGranted, _: Delivery, intake: IntakeService) -> None:
    """Take a balance."""
    await intake.balance_changed(_balance(event.balance))


async def on_usage_rated(event: UsageRated, delivery: Delivery, intake: IntakeService) -> None:
    """Take charges and balances."""
    charges = [
        Charge(
            request_id=charge.usage.request_id,
            account=charge.usage.account_id,
            key=charge.usage.key_id,
            model=charge.usage.model,
            deployment=charge.usage.deployment_id,
            operation=charge.usage.operation,
            quantities=dict(charge.usage.quantities),
            nano_credits=charge.nano_credits,
            estimated=charge.usage.estimated,
            finished_at=_time(charge.usage.finished_at, delivery),
        )
        for charge in event.charges
    ]
    await intake.usage_rated(delivery.id, charges, [_balance(balance) for balance in event.balances])


async def on_api_key(event: ApiKeyCreated | ApiKeyRevoked, delivery: Delivery, intake: IntakeService) -> None:
    """Take a key that was made or revoked."""
    key = event.api_key
    revoked = isinstance(event, ApiKeyRevoked) or key.HasField("revoked_at")
    await intake.key_changed(
        ApiKey(
            id=key.id,
            account=key.account_id,
            name=key.name,
            created_at=_time(key.created_at, delivery),
            revoked_at=_time(key.revoked_at, delivery) if revoked else None,
        )
    )


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
    effective_from = _time(price.effective_from, delivery)
    await intake.price_changed(Price(price.id, price.model_id, dict(price.nano_credits), effective_from))


async def on_deployment_health_changed(
    event: DeploymentHealthChanged, delivery: Delivery, intake: IntakeService
) -> None:
    """Take a deployment's health."""
    health = _HEALTH.get(event.health, "unknown")
    observed_at = _time(event.observed_at, delivery)
    await intake.health_changed(Health(event.deployment_id, health, event.reason, observed_at))


async def on_task_finished(event: TaskFinished, delivery: Delivery, intake: IntakeService) -> None:
    """Take a finished task."""
    await intake.task_finished(
        Task(
            id=event.task_id,
            account=event.account_id,
            type=event.type,
            state=_STATES.get(event.state, "unknown"),
            error=": ".join(filter(None, (event.error.code or event.error.type, event.error.message)))[
                :_MOST_ERROR
            ],
            finished_at=_time(event.finished_at, delivery),
        )
    )


HANDLERS: Mapping[type[Message], Callable[[Any, Delivery, Any], Awaitable[None]]] = {
    AccountOpened: on_account_opened,
    CreditsGranted: on_credits_granted,
    UsageRated: on_usage_rated,
    ApiKeyCreated: on_api_key,
    ApiKeyRevoked: on_api_key,
    ModelRegistered: on_model_registered,
    PriceChanged: on_price_changed,
    DeploymentHealthChanged: on_deployment_health_changed,
    TaskFinished: on_task_finished,
}


def _balance(balance: credits_pb2.Balance) -> Balance:
    return Balance(balance.account_id, balance.available_nano_credits, balance.version)


def _time(time: Timestamp, delivery: Delivery) -> datetime:
    return time.ToDatetime(UTC) if time.ByteSize() else delivery.published_at
