"""Usage is rated and charged, every request once."""

import logging
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Protocol, Self

import prometheus_client
from google.protobuf.message import Message

from dozen.credits.v1 import credits_pb2
from dozen.credits.v1.credits_events_pb2 import UsageRated
from dozen_credits.domain.accounts import Balance
from dozen_credits.domain.metering import Charge, Price, Reason, Unrated, Usage, rate
from dozen_credits.domain.usage import HourKey, sum_by_hour
from dozen_credits.errors import InvalidPrice, PriceNotKnown
from dozen_credits.service.accounts import balance_message

log = logging.getLogger(__name__)

RECORDS = prometheus_client.Counter(
    "dozen_credits_usage_records", "Usage records taken, by what became of them.", ["outcome"]
)
CHARGED = prometheus_client.Counter("dozen_credits_charged_nano_credits", "Nano-credits charged for usage.")
UNPRICED = prometheus_client.Counter(
    "dozen_credits_unpriced_records", "Usage records with a unit that their price does not have.", ["unit"]
)
LAG = prometheus_client.Histogram(
    "dozen_credits_rating_lag_seconds", "Age of the oldest usage of a message when it was charged.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400),
)  # fmt: skip


class MeteringStore(Protocol):
    """Prices, the ledger and usage; what is changed in a transaction is changed together."""

    def transaction(self) -> AbstractAsyncContextManager[Self]:
        """Give the same store in one transaction."""
        ...

    async def emit(self, event: Message) -> None:
        """Publish an event once the transaction has committed."""
        ...

    async def learn(self, price: Price) -> None:
        """Keep a price; one that is kept already stays as it is."""
        ...

    async def prices(self, ids: Collection[str]) -> dict[str, Price]:
        """Give those prices that are known."""
        ...

    async def claim(self, requests: Mapping[str, datetime]) -> set[str]:
        """Take requests by id, with the times at which they finished; give those that nobody took before."""
        ...

    async def lock_accounts(self, ids: Collection[str]) -> set[str]:
        """Keep others from changing accounts until the transaction ends; give those that exist."""
        ...

    async def charge(self, charges: Sequence[Charge]) -> list[Balance]:
        """Keep usage and post what it costs; give the balances of its accounts."""
        ...

    async def add_up(self, sums: Mapping[HourKey, int]) -> None:
        """Add to the sums of each hour."""
        ...

    async def set_aside(self, unrated: Sequence[Unrated]) -> None:
        """Keep usage that cannot be charged."""
        ...


class Metering:
    """Charges what requests used.

    Usage happened before it is known here, so it is charged even where the balance does not suffice: a
    balance may fall below zero by it, and by nothing else.
    """

    def __init__(self, store: MeteringStore, *, price_attempts: int) -> None:
        self._store = store
        self._price_attempts = price_attempts

    async def learn_price(self, price: Price) -> None:
        """Remember a price."""
        if not price.id or any(cost < 0 for cost in price.nano_credits.values()):
            raise InvalidPrice()
        await self._store.learn(price)

    async def charge(self, reported: Sequence[Usage], attempt: int) -> None:
        """Charge those requests that were not charged before, all in one transaction.

        Usage whose price has not been announced yet stays behind, by `PriceNotKnown`, until it is reported
        again; after many attempts it is set aside.
        """
        usages = {usage.request_id: usage for usage in reversed(reported)}
        async with self._store.transaction() as tx:
            known = await tx.prices({usage.price_id for usage in usages.values() if usage.is_well_formed()})
            rated = [rate(usage, known.get(usage.price_id)) for usage in usages.values()]
            waiting = [one.usage for one in rated if self._waits(one, attempt)]
            for usage in waiting:
                del usages[usage.request_id]
            fresh = await tx.claim({usage.request_id: usage.finished_at for usage in usages.values()})
            charges, unrated = await self._settle(tx, [one for one in rated if one.usage.request_id in fresh])
        duplicates = len(reported) - len(waiting) - len(fresh)
        _count(charges, unrated, duplicates)
        if waiting:
            prices = sorted({usage.price_id for usage in waiting})
            raise PriceNotKnown(f"{len(waiting)} of {len(reported)} requests wait for prices {prices[:5]}.")

    async def _settle(
        self, tx: MeteringStore, rated: Sequence[Charge | Unrated]
    ) -> tuple[list[Charge], list[Unrated]]:
        charges = [one for one in rated if isinstance(one, Charge)]
        unrated = [one for one in rated if isinstance(one, Unrated)]
        accounts = await tx.lock_accounts({charge.usage.account_id for charge in charges})
        unrated += [
            Unrated(charge.usage, Reason.UNKNOWN_ACCOUNT)
            for charge in charges
            if charge.usage.account_id not in accounts
        ]
        charges = [charge for charge in charges if charge.usage.account_id in accounts]
        if unrated:
            await tx.set_aside(unrated)
        if charges:
            balances = await tx.charge(charges)
            await tx.add_up(sum_by_hour(charges))
            await tx.emit(_usage_rated(charges, balances))
        return charges, unrated

    def _waits(self, rated: Charge | Unrated, attempt: int) -> bool:
        return (
            isinstance(rated, Unrated)
            and rated.reason is Reason.UNKNOWN_PRICE
            and rated.usage.price_id != ""
            and attempt < self._price_attempts
        )


def _count(charges: Sequence[Charge], unrated: Sequence[Unrated], duplicates: int) -> None:
    RECORDS.labels("rated").inc(len(charges))
    RECORDS.labels("duplicate").inc(duplicates)
    RECORDS.labels("unrated").inc(len(unrated))
    for set_aside in unrated:
        log.error(
            "usage is set aside",
            extra={"usage": set_aside.usage.request_id, "reason": set_aside.reason.value},
        )
    if not charges:
        return
    CHARGED.inc(sum(charge.nano_credits for charge in charges))
    oldest = min(charge.usage.finished_at for charge in charges)
    LAG.observe((datetime.now(UTC) - oldest).total_seconds())
    unpriced = Counter((charge.usage.price_id, unit) for charge in charges for unit in charge.unpriced)
    for (price, unit), count in unpriced.items():
        UNPRICED.labels(unit).inc(count)
        log.warning("a unit has no price and was free", extra={"price": price, "unit": unit, "usages": count})


def _usage_rated(charges: Sequence[Charge], balances: Sequence[Balance]) -> UsageRated:
    return UsageRated(
        charges=[
            credits_pb2.Charge(usage=_record(charge.usage), nano_credits=charge.nano_credits)
            for charge in charges
        ],
        balances=[balance_message(balance) for balance in balances],
    )


def _record(usage: Usage) -> credits_pb2.UsageRecord:
    record = credits_pb2.UsageRecord(
        request_id=usage.request_id,
        account_id=usage.account_id,
        key_id=usage.key_id,
        model=usage.model,
        deployment_id=usage.deployment_id,
        operation=usage.operation,
        price_id=usage.price_id,
        quantities=usage.quantities,
        estimated=usage.estimated,
    )
    record.finished_at.FromDatetime(usage.finished_at)
    return record
