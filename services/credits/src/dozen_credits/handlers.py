"""JetStream handlers of the credits service."""

from collections.abc import Awaitable, Callable
from datetime import UTC
from typing import Any, NamedTuple

from google.protobuf.message import Message

from dozen.credits.v1.credits_events_pb2 import UsageRecounted, UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen.models.v1.models_events_pb2 import PriceChanged
from dozen_chassis.events import Delivery
from dozen_credits.domain.metering import Price, Usage, storable_id
from dozen_credits.service.metering import Metering
from dozen_credits.service.reconciliation import Reconciliations


class Intake(NamedTuple):
    """The use cases that events go to."""

    metering: Metering
    reconciliations: Reconciliations


async def on_usage_reported(event: UsageReported, delivery: Delivery, intake: Intake) -> None:
    """Charge what requests used; each is charged under its own id, however often it is delivered."""
    usages = [_usage(record, delivery) for record in event.records]
    if event.reconciliation_id:
        usages = await intake.reconciliations.compare(
            event.reconciliation_id, event.service, usages, delivery.id
        )
    if usages:
        await intake.metering.charge(usages, delivery.attempt)


async def on_usage_recounted(event: UsageRecounted, delivery: Delivery, intake: Intake) -> None:
    """Note that a service has sent again all that it reported."""
    await intake.reconciliations.expect(event.reconciliation_id, event.service, event.records)


async def on_price_changed(event: PriceChanged, delivery: Delivery, intake: Intake) -> None:
    """Remember a price."""
    price = event.price
    await intake.metering.learn_price(
        Price(price.id, price.model_id, dict(price.nano_credits), price.effective_from.ToDatetime(UTC))
    )


HANDLERS: dict[type[Message], Callable[[Any, Delivery, Any], Awaitable[None]]] = {
    UsageReported: on_usage_reported,
    UsageRecounted: on_usage_recounted,
    PriceChanged: on_price_changed,
}


def _usage(record: UsageRecord, delivery: Delivery) -> Usage:
    finished_at = delivery.published_at  # nothing can finish later, whatever a clock says
    if record.HasField("finished_at"):
        finished_at = min(finished_at, record.finished_at.ToDatetime(UTC))
    return Usage(
        request_id=storable_id(record.request_id),
        account_id=record.account_id,
        key_id=record.key_id,
        model=record.model,
        deployment_id=record.deployment_id,
        operation=record.operation,
        price_id=record.price_id,
        quantities=dict(record.quantities),
        finished_at=finished_at,
        estimated=record.estimated,
        lease_id=record.lease_id,
    )
