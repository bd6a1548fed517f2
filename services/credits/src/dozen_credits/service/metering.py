"""Usage is rated and charged, every request once."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Protocol

import prometheus_client

from dozen.credits.v1 import credits_pb2
from dozen.credits.v1.credits_events_pb2 import UsageRated
from dozen_credits.domain.accounts import Balance
from dozen_credits.domain.invoices import Bill, bills
from dozen_credits.domain.leases import KeyMonth, Lease, Payment, pay, spending
from dozen_credits.domain.metering import Charge, Price, Reason, Unrated, Usage, rate
from dozen_credits.domain.usage import SumKey, sum_up
from dozen_credits.errors.metering import InvalidPrice, PriceNotKnown
from dozen_credits.service.ledger import LedgerStore, balance_message, emit_alerts

log = logging.getLogger(__name__)

RECORDS = prometheus_client.Counter(
    "dozen_credits_usage_records", "Usage records taken, by what became of them.", ["outcome"]
)
CHARGED = prometheus_client.Counter("dozen_credits_charged_nano_credits", "Nano-credits charged for usage.")
WRITTEN_OFF = prometheus_client.Counter(
    "dozen_credits_written_off_nano_credits",
    "Nano-credits of usage that neither lease nor balance could pay.",
)
UNPRICED = prometheus_client.Counter(
    "dozen_credits_unpriced_records", "Usage records with a unit that their price does not have.", ["unit"]
)
LAG = prometheus_client.Histogram(
    "dozen_credits_rating_lag_seconds", "Age of the oldest usage of a message when it was charged.",
    buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400),
)  # fmt: skip


class MeteringStore(LedgerStore, Protocol):
    """Prices, usage, and the leases that pay for it."""

    async def learn(self, price: Price) -> None:
        """Keep a price; one that is kept already stays as it is."""
        ...

    async def prices(self, ids: Collection[str]) -> dict[str, Price]:
        """Give those prices that are known."""
        ...

    async def claim(self, requests: Mapping[str, datetime]) -> set[str]:
        """Take requests by id, with the times at which they finished; give those that nobody took before."""
        ...

    async def open_leases(self, ids: Collection[str]) -> dict[str, Lease]:
        """Give those leases that are open."""
        ...

    async def spend(self, amounts: Mapping[str, int]) -> None:
        """Count what leases paid."""
        ...

    async def keep(self, payments: Sequence[Payment]) -> None:
        """Keep usage with what it was charged."""
        ...

    async def count_spending(self, sums: Mapping[KeyMonth, int]) -> None:
        """Add to what keys were charged."""
        ...

    async def add_up(self, sums: Mapping[SumKey, Sequence[int]]) -> None:
        """Add to the sums of each hour, day and month."""
        ...

    async def bill(self, bills: Collection[Bill]) -> None:
        """Add to invoices."""
        ...

    async def set_aside(self, unrated: Sequence[Unrated]) -> None:
        """Keep usage that cannot be charged."""
        ...


class Metering:
    """Charges what requests used.

    Usage happened before it is known here, so it is charged in full. Its lease pays, then what is available;
    what is left after both is written off.
    """

    def __init__(self, store: MeteringStore, *, price_attempts: int, low_balance: int) -> None:
        self._store = store
        self._price_attempts = price_attempts
        self._low_balance = low_balance

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
        usages: dict[str, Usage] = {}
        for usage in reported:
            usages.setdefault(usage.request_id, usage)
        async with self._store.transaction() as tx:
            known = await tx.prices({usage.price_id for usage in usages.values() if usage.names_a_price})
            rated = [rate(usage, known.get(usage.price_id)) for usage in usages.values()]
            waiting = [one.usage for one in rated if self._waits(one, attempt)]
            for usage in waiting:
                del usages[usage.request_id]
            fresh = await tx.claim({usage.request_id: usage.finished_at for usage in usages.values()})
            payments, unrated = await self._settle(
                tx, [one for one in rated if one.usage.request_id in fresh]
            )
        duplicates = len(reported) - len(waiting) - len(fresh)
        _count(payments, unrated, duplicates)
        if waiting:
            prices = sorted({usage.price_id for usage in waiting})
            raise PriceNotKnown(f"{len(waiting)} of {len(reported)} requests wait for prices {prices[:5]}.")

    async def _settle(
        self, tx: MeteringStore, rated: Sequence[Charge | Unrated]
    ) -> tuple[list[Payment], list[Unrated]]:
        charges = [one for one in rated if isinstance(one, Charge)]
        unrated = [one for one in rated if isinstance(one, Unrated)]
        before = await tx.lock({charge.usage.account_id for charge in charges})
        unrated += [
            Unrated(charge.usage, Reason.UNKNOWN_ACCOUNT)
            for charge in charges
            if charge.usage.account_id not in before
        ]
        charges = [charge for charge in charges if charge.usage.account_id in before]
        if unrated:
            await tx.set_aside(unrated)
        if not charges:
            return [], unrated
        leases = await tx.open_leases({charge.usage.lease_id for charge in charges} - {""})
        payments = pay(charges, before, leases)
        after = before | await self._post(tx, payments)
        await tx.emit(_usage_rated(payments, after.values()))
        await emit_alerts(tx, before, after, self._low_balance)
        return payments, unrated

    async def _post(self, tx: MeteringStore, payments: Sequence[Payment]) -> dict[str, Balance]:
        if used := [payment for payment in payments if not payment.charge.usage.is_nothing]:
            await tx.keep(used)
            await tx.count_spending(spending(payment.charge for payment in used))
            await tx.add_up(sum_up(payment.charge for payment in used))
            await tx.bill(bills(used))
        spent: Counter[str] = Counter()
        for payment in payments:
            if payment.leased:
                spent[payment.charge.usage.lease_id] += payment.leased
        if spent:
            await tx.spend(spent)
        return await tx.post([transfer for payment in payments for transfer in payment.transfers()])

    def _waits(self, rated: Charge | Unrated, attempt: int) -> bool:
        return (
            isinstance(rated, Unrated)
            and rated.reason is Reason.UNKNOWN_PRICE
            and rated.usage.price_id != ""
            and attempt < self._price_attempts
        )


def _count(payments: Sequence[Payment], unrated: Sequence[Unrated], duplicates: int) -> None:
    RECORDS.labels("rated").inc(len(payments))
    RECORDS.labels("duplicate").inc(duplicates)
    RECORDS.labels("unrated").inc(len(unrated))
    for set_aside in unrated:
        log.error(
            "usage is set aside",
            extra={"usage": set_aside.usage.request_id, "reason": set_aside.reason.value},
        )
    if not payments:
        return
    charges = [payment.charge for payment in payments]
    CHARGED.inc(sum(charge.nano_credits for charge in charges))
    oldest = min(charge.usage.finished_at for charge in charges)
    LAG.observe((datetime.now(UTC) - oldest).total_seconds())
    if unpaid := {one.charge.usage.request_id: one.written_off for one in payments if one.written_off}:
        WRITTEN_OFF.inc(sum(unpaid.values()))
        log.error("usage is written off, for its account has no more", extra={"nano_credits": unpaid})
    unpriced = Counter((charge.usage.price_id, unit) for charge in charges for unit in charge.unpriced)
    for (price, unit), count in unpriced.items():
        UNPRICED.labels(unit).inc(count)
        log.warning("a unit has no price and was free", extra={"price": price, "unit": unit, "usages": count})


def _usage_rated(payments: Iterable[Payment], balances: Iterable[Balance]) -> UsageRated:
    return UsageRated(
        charges=[
            credits_pb2.Charge(
                usage=_record(payment.charge.usage),
                nano_credits=payment.charge.nano_credits,
                leased_nano_credits=payment.leased,
                written_off_nano_credits=payment.written_off,
            )
            for payment in payments
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
        lease_id=usage.lease_id,
    )
    record.finished_at.FromDatetime(usage.finished_at)
    return record
