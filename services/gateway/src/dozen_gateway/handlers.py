"""JetStream handlers of the gateway: whatever the order they hear of it in, each keeps the latest."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import UTC
from typing import Any

from google.protobuf.message import Message

from dozen.credits.v1.credits_events_pb2 import AccountOpened, BalanceChanged, CreditsGranted, UsageRated
from dozen.credits.v1.credits_pb2 import Balance
from dozen.models.v1.models_events_pb2 import (
    BREAKER_STATE_OPEN,
    DeploymentHealthChanged,
    ModelRegistered,
    PriceChanged,
    UpstreamObservation,
    UpstreamsObserved,
)
from dozen.models.v1.models_pb2 import HEALTH_UNHEALTHY
from dozen_chassis.events import Delivery
from dozen_gateway.domain.holds import Settlement
from dozen_gateway.domain.loads import Observation
from dozen_gateway.domain.route_table import TOKENS
from dozen_gateway.domain.state import Account, Deployment, Model, Price
from dozen_gateway.service.loads import Heard
from dozen_gateway.service.read_models import ReadModelService


async def on_account_opened(event: AccountOpened, _: Delivery, read_models: ReadModelService) -> None:
    """Take over the balance of a new account."""
    await read_models.record_accounts(_accounts([event.balance]))


async def on_credits_granted(event: CreditsGranted, _: Delivery, read_models: ReadModelService) -> None:
    """Take over a balance that has grown."""
    await read_models.record_accounts(_accounts([event.balance]))


async def on_usage_rated(event: UsageRated, _: Delivery, read_models: ReadModelService) -> None:
    """Take over the balances of accounts that were charged, and which requests are settled."""
    settlements = {}
    for charge in event.charges:
        usage = charge.usage
        quantity = usage.quantities.get
        tokens = sum([quantity(unit, 0) for unit in TOKENS])
        settlements[usage.request_id] = Settlement(usage.lease_id, charge.leased_nano_credits, tokens)
    await read_models.record_accounts(_accounts(event.balances), settlements)


async def on_balance_changed(event: BalanceChanged, _: Delivery, read_models: ReadModelService) -> None:
    """Take over a balance that was corrected, refunded or has expired."""
    await read_models.record_accounts(_accounts([event.balance]))


async def on_model_registered(
    event: ModelRegistered, delivery: Delivery, read_models: ReadModelService
) -> None:
    """Take over an entry of the catalogue; the later published replaces the earlier."""
    model = event.model
    await read_models.record_model(
        Model(
            id=model.id,
            capabilities=frozenset(model.capabilities),
            context_length=model.context_length,
            deployments=tuple(
                Deployment(
                    id=deployment.id,
                    service=deployment.service,
                    address=deployment.address.rstrip("/"),
                    priority=deployment.priority,
                    weight=deployment.weight,
                )
                for deployment in model.deployments
            ),
            fallbacks=tuple(model.fallbacks),
            cache_seconds=max(0, model.cache_seconds),
            content_filter=model.content_filter,
        ),
        delivery.published_at,
    )


async def on_price_changed(event: PriceChanged, _: Delivery, read_models: ReadModelService) -> None:
    """Take over a price."""
    price = event.price
    effective_from = price.effective_from.ToDatetime(UTC).timestamp()
    await read_models.record_price(price.model_id, Price(price.id, dict(price.nano_credits), effective_from))


async def on_deployment_health_changed(
    event: DeploymentHealthChanged, _: Delivery, read_models: ReadModelService
) -> None:
    """Take over the health of a deployment; only one that is known to be unhealthy takes no requests."""
    await read_models.record_health(
        event.deployment_id, event.health != HEALTH_UNHEALTHY, event.observed_at.ToDatetime(UTC)
    )


async def observations(facts: AsyncIterator[UpstreamsObserved]) -> AsyncIterator[Heard]:
    """Read what processes tell of the deployments that they call."""
    async for fact in facts:
        yield fact.observer, {one.deployment_id: _observation(one) for one in fact.upstreams}


def _observation(seen: UpstreamObservation) -> Observation:
    return Observation(
        requests=max(0, seen.requests),
        running=max(0, seen.running) if seen.HasField("running") else None,
        waiting=max(0, seen.waiting) if seen.HasField("waiting") else None,
        cache_usage=seen.kv_cache_usage if seen.HasField("kv_cache_usage") else None,
        first_byte_seconds=max(0.0, seen.first_byte_seconds),
        is_open=seen.breaker == BREAKER_STATE_OPEN,
    )


def _accounts(balances: Iterable[Balance]) -> dict[str, Account]:
    accounts: dict[str, Account] = {}
    for balance in balances:
        known = accounts.get(balance.account_id)
        if known is None or known.version < balance.version:
            accounts[balance.account_id] = Account(balance.available_nano_credits, balance.version)
    return accounts


HANDLERS: Mapping[type[Message], Callable[[Any, Delivery, ReadModelService], Awaitable[None]]] = {
    AccountOpened: on_account_opened,
    CreditsGranted: on_credits_granted,
    UsageRated: on_usage_rated,
    BalanceChanged: on_balance_changed,
    ModelRegistered: on_model_registered,
    PriceChanged: on_price_changed,
    DeploymentHealthChanged: on_deployment_health_changed,
}
