"""Usage over time, summed."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Self

from dozen_credits.domain.metering import NANO_CREDITS, REQUESTS, Charge

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class HourKey(NamedTuple):
    """What is summed apart from everything else in an hour."""

    account_id: str
    hour: datetime
    key_id: str
    model: str
    operation: str
    measure: str


@dataclass(frozen=True, slots=True)
class UsageSum:
    """Usage in a stretch of time; what it is not grouped by is None."""

    start: datetime
    end: datetime
    model: str | None
    key_id: str | None
    operation: str | None
    measures: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Buckets:
    """A time span cut into equal buckets."""

    start: datetime
    end: datetime
    width: timedelta

    @classmethod
    def covering(cls, start: datetime, end: datetime, width: timedelta | None) -> Self:
        """Widen a span to whole buckets, which begin at full hours or days (UTC); without a width, to one."""
        step = width or timedelta(hours=1)
        first, last = _floor(start, step), _floor(end, step)
        if last < end:
            last += step
        return cls(first, last, width or last - first)

    def following(self, after: datetime) -> Self:
        """Give the buckets that begin later than a moment."""
        passed = max(0, (after - self.start) // self.width + 1)
        return replace(self, start=self.start + passed * self.width)


def sum_by_hour(charges: Iterable[Charge]) -> Counter[HourKey]:
    """Add up charges and quantities by hour, account, key, model, operation and measure."""
    sums: Counter[HourKey] = Counter()
    for charge in charges:
        usage = charge.usage
        hour = _floor(usage.finished_at, timedelta(hours=1))
        whose = (usage.account_id, hour, usage.key_id, usage.model, usage.operation)
        measures = {**usage.quantities, REQUESTS: 1, NANO_CREDITS: charge.nano_credits}
        for measure, amount in measures.items():
            sums[HourKey(*whose, measure)] += amount
    return sums


def _floor(time: datetime, step: timedelta) -> datetime:
    return time - (time - _EPOCH) % step
