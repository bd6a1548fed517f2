"""JetStream handlers of the credits service."""

from collections.abc import Awaitable, Callable
from datetime import UTC
from typing import Any

from google.protobuf.message import Message

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen.models.v1.models_events_pb2 import PriceChanged
from dozen_chassis.events import Delivery
from dozen_credits.domain.metering import Price, Usage, storable_id
from dozen_credits.service.metering import Metering


async def on_usage_reported(event: UsageReported, delivery: Delivery, metering: Metering) -> None:
    """Charge what requests used; each is charged under its own id, however often it is delivered."""
    await metering.charge([_usage(record, delivery) for record in event.records], delivery.attempt)


async def on_price_changed(event: PriceChanged, delivery: Delivery, metering: Metering) -> None:
    """Remember a price."""
    price = event.price
    await metering.learn_price(
        Price(price.id, price.model_id, dict(price.nano_credits), price.effective_from.ToDatetime(UTC))
    )


HANDLERS: dict[type[Message], Callable[[Any, Delivery, Any], Awaitable[None]]] = {
    UsageReported: on_usage_reported,
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
