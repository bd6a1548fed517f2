"""Reported = rated = posted: counted, and what does not match is found."""

from collections import Counter
from collections.abc import Mapping
from typing import Protocol

from dozen_credits.domain.reconciliation import Period, Reconciliation
from dozen_credits.domain.usage import Step


class AuditStore(Protocol):
    """Compares what is kept in several places; each comparison keeps what it finds, and counts it."""

    async def audit_recounts(self, reconciliation_id: str, period: Period) -> Mapping[str, int]:
        """Count what was sent again; what was missing counts although it finished shortly before or after."""
        ...

    async def audit_charges(
        self, reconciliation_id: str, period: Period, *, all_recounted: bool
    ) -> Mapping[str, int]:
        """Compare what was rated with what was posted, and with what was sent again where that is all."""
        ...

    async def audit_transfers(self, reconciliation_id: str, period: Period) -> Mapping[str, int]:
        """Find what was posted in a period for requests that were not rated then."""
        ...

    async def audit_sums(self, reconciliation_id: str, step: Step, span: Period) -> Mapping[str, int]:
        """Compare the sums of one hour, day or month with what they are made of."""
        ...


async def audit(tx: AuditStore, taken: Reconciliation) -> Counter[str]:
    """Compare a period hour by hour, so that no query is long."""
    counts: Counter[str] = Counter()
    counts.update(await tx.audit_recounts(taken.id, taken.period))
    for hour in taken.period.hours():
        counts.update(await tx.audit_charges(taken.id, hour, all_recounted=not taken.waiting_for))
        counts.update(await tx.audit_transfers(taken.id, hour))
    for step in Step:
        for span in taken.period.whole(step):
            counts.update(await tx.audit_sums(taken.id, step, span))
    return counts
