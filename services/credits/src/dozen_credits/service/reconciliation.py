"""Reconciliations: services send again what they reported, and what was missing is charged."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Protocol, Self
from uuid import uuid4

import prometheus_client
from google.protobuf.message import Message

from dozen.credits.v1 import reconciliation_pb2
from dozen.credits.v1.credits_events_pb2 import UsageRecountRequested
from dozen_credits.domain.accounts import is_text
from dozen_credits.domain.metering import Price, Usage
from dozen_credits.domain.reconciliation import (
    CLOCKS_APART,
    FINDINGS,
    Finding,
    Known,
    Outcome,
    Period,
    Reconciliation,
    Recount,
    State,
    Sum,
    recount,
)
from dozen_credits.errors.reconciliation import InvalidReconciliation, ReconciliationNotFound
from dozen_credits.service.audit import AuditStore, audit

log = logging.getLogger(__name__)

RECORDS = prometheus_client.Counter(
    "dozen_credits_reconciled_records",
    "Usage records that were sent again, by what came of them.",
    ["result"],
)
LAST = prometheus_client.Gauge(
    "dozen_credits_reconciliation_findings", "Findings of the last complete reconciliation.", ["kind"]
)
COMPLETED = prometheus_client.Gauge(
    "dozen_credits_reconciliation_completed_timestamp_seconds", "When the last reconciliation was complete."
)

_FINDINGS_SHOWN = 100
_STATES = {
    State.RUNNING: reconciliation_pb2.RECONCILIATION_STATE_RUNNING,
    State.COMPLETE: reconciliation_pb2.RECONCILIATION_STATE_COMPLETE,
    State.INCOMPLETE: reconciliation_pb2.RECONCILIATION_STATE_INCOMPLETE,
}
_FORGOTTEN_TOGETHER = 10_000


class ReconciliationStore(AuditStore, Protocol):
    """Reconciliations, and all that they compare."""

    def transaction(self) -> AbstractAsyncContextManager[Self]:
        """Give the same store in one transaction."""
        ...

    async def emit(self, event: Message) -> None:
        """Publish an event once the transaction has committed."""
        ...

    async def first_delivery(self, event_id: str) -> bool:
        """Record that an event is being handled; False where it already was."""
        ...

    async def open(
        self, reconciliation_id: str, period: Period, services: Collection[str], *, automatic: bool
    ) -> bool:
        """Begin a reconciliation; False where one of the period runs, or ran by itself as this one would."""
        ...

    async def find(self, reconciliation_id: str) -> Reconciliation | None:
        """Give a reconciliation."""
        ...

    async def find_running(self, period: Period) -> Reconciliation | None:
        """Give the reconciliation of a period that runs."""
        ...

    async def page(self, after: str, limit: int) -> list[Reconciliation]:
        """Give the newest reconciliations, or those before the one with the id `after`."""
        ...

    async def last_complete(self) -> Reconciliation | None:
        """Give the last reconciliation that was complete."""
        ...

    async def unfinished(self) -> list[str]:
        """Give the ids of those that are not complete and may still be, the oldest first."""
        ...

    async def take(self, reconciliation_id: str) -> Reconciliation | None:
        """Give one that is not complete and keep others from it; None where another has it."""
        ...

    async def receive(self, reconciliation_id: str, service: str, records: int) -> bool:
        """Count records that a service sent again; False where there is nothing to reconcile any more."""
        ...

    async def expect(self, reconciliation_id: str, service: str, records: int) -> None:
        """Note how many records a service sends again."""
        ...

    async def prices(self, ids: Collection[str]) -> dict[str, Price]:
        """Give those prices that are known."""
        ...

    async def known(self, accounts: Mapping[str, str]) -> dict[str, Known]:
        """Give what is known of requests, by their ids and those of the accounts that are to be charged."""
        ...

    async def keep_recounts(self, reconciliation_id: str, recounts: Sequence[Recount]) -> None:
        """Keep what came of comparisons; of several of a request one that matches is enough."""
        ...

    async def count_unrated(self, reconciliation_id: str) -> int:
        """Tell how many of the missing requests are on their way to be charged."""
        ...

    async def finish(self, reconciliation_id: str, state: State, counts: Mapping[str, int]) -> None:
        """Note what came of a reconciliation."""
        ...

    async def findings(self, reconciliation_id: str, limit: int) -> list[Finding]:
        """Give the first findings, in the order of kind, account and reference."""
        ...

    async def forget_recounts(self, limit: int) -> int:
        """Drop requests that were sent again for what is complete or never will be; return how many."""
        ...


class Page(NamedTuple):
    """Part of a list."""

    rows: list[Reconciliation]
    has_more: bool


class Reconciliations:
    """Asks the services for what they reported, and compares it with what was rated and posted."""

    def __init__(
        self,
        store: ReconciliationStore,
        *,
        services: Collection[str],
        answer_within: timedelta,
        daily_after: timedelta = timedelta(hours=1),
    ) -> None:
        self._store = store
        self._services = services
        self._answer_within = answer_within
        self._daily_after = daily_after

    async def start(self, period: Period) -> Reconciliation:
        """Begin a reconciliation, or give the one of the same period that runs."""
        if not period.can_be_reconciled(datetime.now(UTC)):
            raise InvalidReconciliation()
        while True:
            opened = await self._open(period, automatic=False)
            if found := opened or await self._store.find_running(period):
                return found  # else the other one has just ended

    async def start_daily(self) -> None:
        """Begin the reconciliation of yesterday (UTC), once, whichever replica is the first."""
        now = datetime.now(UTC)
        today = now.replace(hour=0, minute=0, second=0, microsecond=0)
        if now >= today + self._daily_after:
            await self._open(Period(today - timedelta(days=1), today), automatic=True)

    async def compare(
        self, reconciliation_id: str, service: str, usages: Sequence[Usage], event_id: str
    ) -> list[Usage]:
        """Compare what a service sent again, once; give those that are not known and are to be charged."""
        by_id = {usage.request_id: usage.account_id for usage in usages}
        outcomes: Counter[str] = Counter()
        async with self._store.transaction() as tx:
            if not await tx.first_delivery(event_id):
                return list(usages)  # perhaps it ended before they were charged
            known = await tx.known(by_id)
            if await tx.receive(reconciliation_id, service, len(usages)):
                prices = await tx.prices({usage.price_id for usage in usages if usage.is_well_formed()})
                recounts = [
                    recount(usage, known.get(usage.request_id), prices.get(usage.price_id))
                    for usage in usages
                ]
                kept = _one_each(recounts)
                await tx.keep_recounts(reconciliation_id, kept)
                outcomes.update(one.outcome for one in kept)
        for outcome, count in outcomes.items():
            RECORDS.labels(outcome).inc(count)
        unknown = [usage for usage in usages if usage.request_id not in known]
        if unknown:
            ids = [usage.request_id for usage in unknown]
            log.warning("usage was missing and is charged", extra={"usage": ids, "service": service})
        return unknown

    async def expect(self, reconciliation_id: str, service: str, records: int) -> None:
        """Note that a service has sent again all that it had, which may not have arrived yet."""
        await self._store.expect(reconciliation_id, service, records)

    async def advance(self) -> None:
        """Finish what is ready, and what nobody should wait for any longer; show the last complete one."""
        for reconciliation_id in await self._store.unfinished():
            async with self._store.transaction() as tx:
                if taken := await tx.take(reconciliation_id):
                    await self._finish(tx, taken)
        if last := await self._store.last_complete():
            for kind in FINDINGS:
                LAST.labels(kind).set(last.counts.get(kind, 0))
            COMPLETED.set(last.finished_at.timestamp() if last.finished_at else 0)

    async def get(self, reconciliation_id: str) -> tuple[Reconciliation, list[Finding]]:
        """Give a reconciliation with its first findings."""
        found = await self._store.find(reconciliation_id) if is_text(reconciliation_id, 64) else None
        if found is None:
            raise ReconciliationNotFound(param="reconciliation_id")
        return found, await self._store.findings(reconciliation_id, _FINDINGS_SHOWN)

    async def page(self, after: str, limit: int) -> Page:
        """Give reconciliations, the newest first; a limit of zero is 20."""
        limit = min(limit, 100) if limit > 0 else 20
        if after:
            await self.get(after)
        rows = await self._store.page(after, limit + 1)
        return Page(rows[:limit], len(rows) > limit)

    async def forget(self) -> None:
        """Drop what was kept only to be compared."""
        while await self._store.forget_recounts(_FORGOTTEN_TOGETHER):
            pass

    async def _open(self, period: Period, *, automatic: bool) -> Reconciliation | None:
        reconciliation_id = f"recon_{uuid4().hex}"
        async with self._store.transaction() as tx:
            if not await tx.open(reconciliation_id, period, self._services, automatic=automatic):
                return None
            request = UsageRecountRequested(reconciliation_id=reconciliation_id)
            request.start.FromDatetime(period.start - CLOCKS_APART)
            request.end.FromDatetime(period.end + CLOCKS_APART)
            await tx.emit(request)
            return await tx.find(reconciliation_id)

    async def _finish(self, tx: ReconciliationStore, taken: Reconciliation) -> None:
        is_overdue = datetime.now(UTC) > taken.created_at + self._answer_within
        if taken.waiting_for:
            if taken.state is not State.RUNNING or not is_overdue:
                return
        elif not is_overdue and await tx.count_unrated(taken.id):
            return
        state = State.INCOMPLETE if taken.waiting_for else State.COMPLETE
        counts = await audit(tx, taken)
        await tx.finish(taken.id, state, counts)
        found = {kind.value: counts[kind] for kind in FINDINGS if counts[kind]}
        level = logging.ERROR if found or taken.waiting_for else logging.INFO
        identified = {"reconciliation": taken.id, "findings": found, "waiting_for": taken.waiting_for}
        log.log(level, "reconciliation is %s", state.value, extra=identified)


def _one_each(recounts: Iterable[Recount | None]) -> list[Recount]:
    """Give one for each request, one that matches where there is one."""
    chosen: dict[str, Recount] = {}
    for one in recounts:
        if one and (one.usage.request_id not in chosen or one.outcome is Outcome.MATCHED):
            chosen[one.usage.request_id] = one
    return list(chosen.values())


def reconciliation_message(reconciliation: Reconciliation) -> reconciliation_pb2.Reconciliation:
    """Write a reconciliation as the contract has it."""
    message = reconciliation_pb2.Reconciliation(
        id=reconciliation.id,
        state=_STATES[reconciliation.state],
        automatic=reconciliation.automatic,
        waiting_for=reconciliation.waiting_for,
        received_records=reconciliation.received,
        reported=_sum_message(reconciliation.side("reported")),
        rated=_sum_message(reconciliation.side("rated")),
        posted=_sum_message(reconciliation.side("posted")),
        findings_by_kind=reconciliation.findings,
        agrees=reconciliation.agrees,
    )
    message.start.FromDatetime(reconciliation.period.start)
    message.end.FromDatetime(reconciliation.period.end)
    message.created_at.FromDatetime(reconciliation.created_at)
    if reconciliation.finished_at:
        message.finished_at.FromDatetime(reconciliation.finished_at)
    return message


def _sum_message(side: Sum) -> reconciliation_pb2.ReconciliationSum:
    return reconciliation_pb2.ReconciliationSum(requests=side.requests, nano_credits=side.nano_credits)
