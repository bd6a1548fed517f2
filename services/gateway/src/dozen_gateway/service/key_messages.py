"""API keys in the contract's form, without their secrets."""

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from dozen.gateway.v1 import gateway_pb2, gateway_service_pb2
from dozen_chassis.errors import InvalidRequest
from dozen_gateway.domain.key_terms import KeyTerms, some_limits
from dozen_gateway.domain.keys import ANY, NO_LABELS, ApiKey, Budget, BudgetPeriod
from dozen_gateway.domain.limits import RateLimits

_PERIODS = {
    BudgetPeriod.MONTH: gateway_pb2.KEY_BUDGET_PERIOD_MONTH,
    BudgetPeriod.TOTAL: gateway_pb2.KEY_BUDGET_PERIOD_TOTAL,
}


def api_key_message(key: ApiKey) -> gateway_pb2.ApiKey:
    """Write a key."""
    return gateway_pb2.ApiKey(
        id=key.id,
        account_id=key.account,
        name=key.name,
        created_at=_timestamp(key.created_at),
        revoked_at=_timestamp(key.revoked_at),
        expires_at=_timestamp(key.expires_at),
        labels=dict(key.labels),
        endpoints=sorted(key.endpoints),
        models=sorted(key.models),
        limits=_limits(key.limits) if key.limits else None,
        budget=_budget(key.budget) if key.budget else None,
        previous_secret_expires_at=_timestamp(key.previous_until),
        version=key.version,
    )


def read_terms(message: gateway_service_pb2.KeyTerms) -> KeyTerms:
    """Read the terms of a key."""
    return KeyTerms(
        name=message.name,
        labels=dict(message.labels) or NO_LABELS,
        endpoints=frozenset(message.endpoints) or ANY,
        models=frozenset(message.models) or ANY,
        limits=some_limits(_read_limits(message.limits)),
        budget=_read_budget(message.budget) if message.HasField("budget") else None,
        expires_at=read_seconds(message.expires_at) if message.HasField("expires_at") else None,
    )


def read_seconds(message: Timestamp | Duration) -> float:
    """Read a time or a period; whether it makes sense is for others to say."""
    return round(message.seconds + message.nanos / 1_000_000_000, 6)


def _timestamp(at: float | None) -> Timestamp | None:
    if at is None:
        return None
    message = Timestamp()
    message.FromMicroseconds(round(at * 1_000_000))
    return message


def _limits(limits: RateLimits) -> gateway_pb2.RateLimits:
    return gateway_pb2.RateLimits(
        requests_per_minute=limits.requests_per_minute,
        tokens_per_minute=limits.tokens_per_minute,
        concurrent_requests=limits.concurrent_requests,
    )


def _budget(budget: Budget) -> gateway_pb2.KeyBudget:
    return gateway_pb2.KeyBudget(nano_credits=budget.nano_credits, period=_PERIODS[budget.period])


def _read_limits(message: gateway_pb2.RateLimits) -> RateLimits:
    return RateLimits(
        **{field.name: getattr(message, field.name) for field, _ in message.ListFields()},
    )


def _read_budget(message: gateway_pb2.KeyBudget) -> Budget:
    for period, number in _PERIODS.items():
        if number == message.period:
            return Budget(message.nano_credits, period)
    raise InvalidRequest("A budget needs a period.", param="budget")
