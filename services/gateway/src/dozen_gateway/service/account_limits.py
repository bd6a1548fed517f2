"""The administration of the limits of accounts."""

from collections.abc import Mapping
from typing import Protocol

from dozen.gateway.v1 import gateway_pb2
from dozen_chassis.errors import InvalidRequest
from dozen_gateway.domain.keys import ACCOUNT_ID
from dozen_gateway.domain.limits import LARGEST_LIMIT, RateLimits
from dozen_gateway.errors.keys import InvalidAccountId

MOST_MODEL_CHARACTERS = 256
MOST_ENTRIES = 1000
"""Of one account: for all models, and for single ones."""

_MEASURES = ("requests_per_minute", "tokens_per_minute", "concurrent_requests")


class AccountLimitsStore(Protocol):
    """Where the limits of accounts are kept."""

    async def set_account_limits(self, account: str, model: str, limits: RateLimits) -> None:
        """Replace limits, and tell every replica."""
        ...

    async def account_limits(self, account: str) -> Mapping[str, RateLimits]:
        """Give the limits of an account, by model."""
        ...


class AccountLimitsService:
    """Sets and lists the limits of accounts."""

    def __init__(self, store: AccountLimitsStore) -> None:
        self._store = store

    async def set(self, message: gateway_pb2.AccountLimits) -> gateway_pb2.AccountLimits:
        """Replace the limits of an account, for all its models or for one; every replica follows."""
        account, model, limits = message.account_id, message.model, read_limits(message.limits)
        _check_account(account)
        if len(model) > MOST_MODEL_CHARACTERS or "\0" in model:
            raise InvalidRequest(f"A model has at most {MOST_MODEL_CHARACTERS} characters.", param="model")
        for name in _MEASURES:
            limit = getattr(limits, name)
            if limit is not None and not 1 <= limit <= LARGEST_LIMIT:
                raise InvalidRequest(f"A limit must be absent or between 1 and {LARGEST_LIMIT}.", param=name)
        known = await self._store.account_limits(account)
        if limits != RateLimits() and len({*known, model}) > MOST_ENTRIES:
            raise InvalidRequest(f"An account has limits for at most {MOST_ENTRIES} models.", param="model")
        await self._store.set_account_limits(account, model, limits)
        return account_limits_message(account, model, limits)

    async def list(self, account: str) -> list[gateway_pb2.AccountLimits]:
        """List the limits of an account, those for all its models first."""
        _check_account(account)
        found = await self._store.account_limits(account)
        return [account_limits_message(account, model, limits) for model, limits in sorted(found.items())]


def read_limits(message: gateway_pb2.RateLimits) -> RateLimits:
    """Read limits; one that is absent bounds nothing."""
    return RateLimits(
        *(getattr(message, name) if message.HasField(name) else None for name in _MEASURES)  # type: ignore[arg-type]
    )


def account_limits_message(account: str, model: str, limits: RateLimits) -> gateway_pb2.AccountLimits:
    """Write the limits of an account."""
    return gateway_pb2.AccountLimits(
        account_id=account,
        model=model,
        limits=gateway_pb2.RateLimits(
            requests_per_minute=limits.requests_per_minute,
            tokens_per_minute=limits.tokens_per_minute,
            concurrent_requests=limits.concurrent_requests,
        ),
    )


def _check_account(account: str) -> None:
    if not ACCOUNT_ID.fullmatch(account):
        raise InvalidAccountId(param="account_id")
