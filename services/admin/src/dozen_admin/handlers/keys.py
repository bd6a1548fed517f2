"""What the gateway tells of API keys."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from dozen.gateway.v1 import gateway_pb2
from dozen.gateway.v1.gateway_events_pb2 import (
    ApiKeyCreated,
    ApiKeyRevoked,
    ApiKeysAnnounced,
    ApiKeyUpdated,
)
from dozen_admin.domain.keys import ApiKey, Budget, KeyTerms, RateLimits
from dozen_admin.handlers.deliveries import time_of
from dozen_admin.service.intake import IntakeService
from dozen_chassis.events import Delivery

_PERIODS: Mapping[int, str] = {
    gateway_pb2.KEY_BUDGET_PERIOD_MONTH: "month",
    gateway_pb2.KEY_BUDGET_PERIOD_TOTAL: "total",
}


async def on_api_key(
    event: ApiKeyCreated | ApiKeyUpdated | ApiKeyRevoked, delivery: Delivery, intake: IntakeService
) -> None:
    """Take a key that was made, changed or revoked, whole."""
    await intake.key_changed(
        _api_key(event.api_key, delivery, revoked=isinstance(event, ApiKeyRevoked)), delivery.published_at
    )


async def on_api_keys_announced(event: ApiKeysAnnounced, delivery: Delivery, intake: IntakeService) -> None:
    """Take keys as they are."""
    for key in event.api_keys:
        await intake.key_changed(_api_key(key, delivery), delivery.published_at)


HANDLERS: Mapping[type[Message], Callable[[Any, Delivery, Any], Awaitable[None]]] = {
    ApiKeyCreated: on_api_key,
    ApiKeyUpdated: on_api_key,
    ApiKeyRevoked: on_api_key,
    ApiKeysAnnounced: on_api_keys_announced,
}


def _api_key(key: gateway_pb2.ApiKey, delivery: Delivery, *, revoked: bool = False) -> ApiKey:
    revoked = revoked or key.HasField("revoked_at")
    rotated = key.HasField("previous_secret_expires_at")
    return ApiKey(
        id=key.id,
        account=key.account_id,
        terms=_terms(key),
        created_at=time_of(key.created_at, delivery),
        revoked_at=time_of(key.revoked_at, delivery) if revoked else None,
        expires_at=time_of(key.expires_at, delivery) if key.HasField("expires_at") else None,
        previous_secret_expires_at=time_of(key.previous_secret_expires_at, delivery) if rotated else None,
    )


def _terms(key: gateway_pb2.ApiKey) -> KeyTerms:
    budget = Budget(key.budget.nano_credits, _PERIODS.get(key.budget.period, "total"))
    return KeyTerms(
        name=key.name,
        labels=dict(key.labels),
        endpoints=tuple(key.endpoints),
        models=tuple(key.models),
        limits=RateLimits(
            **{
                name: getattr(key.limits, name)
                for name in ("requests_per_minute", "tokens_per_minute", "concurrent_requests")
                if key.limits.HasField(name)
            }
        ),
        budget=budget if key.HasField("budget") else None,
    )
