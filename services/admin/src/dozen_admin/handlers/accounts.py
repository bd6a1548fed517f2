"""What credits tells of accounts: their balances, and what they are charged."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from google.protobuf.message import Message

from dozen.credits.v1 import credits_pb2
from dozen.credits.v1.credits_events_pb2 import (
    AccountOpened,
    BalanceChanged,
    BalanceExhausted,
    BalanceLow,
    CreditsGranted,
    UsageRated,
)
from dozen_admin.domain.accounts import Account, Balance
from dozen_admin.domain.usage import Charge
from dozen_admin.handlers.deliveries import time_of
from dozen_admin.service.intake import IntakeService
from dozen_chassis.events import Delivery


async def on_account_opened(event: AccountOpened, delivery: Delivery, intake: IntakeService) -> None:
    """Take an account."""
    account = event.account
    await intake.account_opened(
        Account(account.id, account.name, time_of(account.created_at, delivery)), _balance(event.balance)
    )


async def on_balance(event: CreditsGranted | BalanceChanged, _: Delivery, intake: IntakeService) -> None:
    """Take a balance."""
    await intake.balance_changed(_balance(event.balance))


async def on_balance_low(event: BalanceLow, _: Delivery, intake: IntakeService) -> None:
    """Take a balance that fell below a limit."""
    await intake.balance_low(_balance(event.balance), event.limit_nano_credits)


async def on_balance_exhausted(event: BalanceExhausted, _: Delivery, intake: IntakeService) -> None:
    """Take a balance of which nothing is left."""
    await intake.balance_exhausted(_balance(event.balance))


async def on_usage_rated(event: UsageRated, delivery: Delivery, intake: IntakeService) -> None:
    """Take charges and balances; what used nothing is told for those who hold credits for it."""
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
            finished_at=time_of(charge.usage.finished_at, delivery),
        )
        for charge in event.charges
        if any(charge.usage.quantities.values())
    ]
    await intake.usage_rated(delivery.id, charges, [_balance(balance) for balance in event.balances])


HANDLERS: Mapping[type[Message], Callable[[Any, Delivery, Any], Awaitable[None]]] = {
    AccountOpened: on_account_opened,
    CreditsGranted: on_balance,
    BalanceChanged: on_balance,
    BalanceLow: on_balance_low,
    BalanceExhausted: on_balance_exhausted,
    UsageRated: on_usage_rated,
}


def _balance(balance: credits_pb2.Balance) -> Balance:
    return Balance(
        account=balance.account_id,
        available=balance.available_nano_credits,
        version=balance.version,
        leased=balance.leased_nano_credits,
    )
