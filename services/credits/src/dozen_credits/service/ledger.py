"""What all use cases that move credits need of the ledger, and what they tell of it."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self

from google.protobuf.message import Message

from dozen.credits.v1 import credits_pb2
from dozen.credits.v1.credits_events_pb2 import BalanceExhausted, BalanceLow
from dozen_credits.domain.accounts import Balance
from dozen_credits.domain.ledger import Alert, Transfer, alerts


class LedgerStore(Protocol):
    """The ledger; what is changed in a transaction is changed together, events included."""

    def transaction(self) -> AbstractAsyncContextManager[Self]:
        """Give the same store in one transaction."""
        ...

    async def emit(self, event: Message) -> None:
        """Publish an event once the transaction has committed."""
        ...

    async def lock(self, account_ids: Collection[str]) -> dict[str, Balance]:
        """Keep others from changing accounts until the transaction ends; give the balances of those found."""
        ...

    async def post(self, transfers: Sequence[Transfer]) -> dict[str, Balance]:
        """Post transfers; give the balances that changed by them."""
        ...


async def emit_alerts(
    tx: LedgerStore, before: Mapping[str, Balance], after: Mapping[str, Balance], low: int
) -> None:
    """Tell of balances that fell below a limit, and of those of which nothing is left."""
    for alert, balance in alerts(before, after, low):
        message = balance_message(balance)
        if alert is Alert.LOW:
            await tx.emit(BalanceLow(balance=message, limit_nano_credits=low))
        else:
            await tx.emit(BalanceExhausted(balance=message))


def balance_message(balance: Balance) -> credits_pb2.Balance:
    """Write a balance as the contract has it."""
    return credits_pb2.Balance(
        account_id=balance.account_id,
        available_nano_credits=balance.available,
        leased_nano_credits=balance.leased,
        version=balance.version,
    )
