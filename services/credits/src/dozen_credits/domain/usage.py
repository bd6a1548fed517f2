"""Usage over time, summed."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import NamedTuple, Self

from dozen_credits.domain.metering import Charge

UNITS = (
    "input_tokens", "cached_input_tokens", "output_tokens", "cache_hits", "images", "audio_milliseconds",
    "characters",
)  # fmt: skip
"""What is summed of quantities; these are the units that prices have."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


class Step(StrEnum):
    """The lengths of time that usage is summed over."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class SumKey(NamedTuple):
    """What is summed apart from everything else."""

    account_id: str
    step: Step
    start: datetime
    key_id: str
    model: str
    operation: str


class Place(NamedTuple):
    """Where sums are in a list: the start of their bucket, and their number in it, from 1."""

    start: datetime
    number: int


@dataclass(frozen=True, slots=True)
class UsageSum:
    """Usage in a stretch of time; what it is not grouped by is None."""

    place: Place
    end: datetime
    model: str | None
    key_id: str | None
    operation: str | None
    requests: int
    nano_credits: int
    quantities: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """What of an account's usage is summed, and by what apart from time."""

    models: frozenset[str] | None = None
    """None takes those of all models, as below."""
    key_ids: frozenset[str] | None = None
    groups: frozenset[str] = frozenset()
    """Of `model`, `key` and `operation`."""


class Span(NamedTuple):
    """Whole steps of one length."""

    step: Step
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Buckets:
    """A time span cut into equal buckets."""

    start: datetime
    end: datetime
    width: timedelta

    @classmethod
    def covering(cls, start: datetime, end: datetime, width: timedelta | None) -> Self:
        """Widen a span to whole buckets, which begin at full hours or days (UTC); without a width, to one."""
        step = width or _HOUR
        first, last = _floor(start, step), _ceiling(end, step)
        return cls(first, last, width or last - first)

    def starting(self, moment: datetime) -> Self:
        """Give those buckets that end later than a moment."""
        passed = max(0, (moment - self.start) // self.width)
        return replace(self, start=self.start + passed * self.width)

    def spans(self) -> list[Span]:
        """Take the period apart into as few steps as it can be; none is longer than a bucket."""
        if self.start >= self.end:
            return []
        if self.width == _HOUR:
            return [Span(Step.HOUR, self.start, self.end)]
        days = [_ceiling(self.start, _DAY), _floor(self.end, _DAY)]
        if days[0] >= days[1]:
            return [Span(Step.HOUR, self.start, self.end)]
        months = [_month(days[0]), _month(days[1])]
        if months[0] < days[0]:
            months[0] = _month(months[0] + 32 * _DAY)
        if self.width == _DAY or months[0] >= months[1]:
            months = [days[1], days[1]]
        spans = (
            Span(Step.HOUR, self.start, days[0]),
            Span(Step.DAY, days[0], months[0]),
            Span(Step.MONTH, *months),
            Span(Step.DAY, months[1], days[1]),
            Span(Step.HOUR, days[1], self.end),
        )
        return [span for span in spans if span.start < span.end]


def sum_up(charges: Iterable[Charge]) -> dict[SumKey, list[int]]:
    """Add up requests, their costs, and the amounts of each of `UNITS`, for every step of time."""
    hours: dict[SumKey, list[int]] = {}
    for charge in charges:
        usage = charge.usage
        start = _floor(usage.finished_at, _HOUR)
        key = SumKey(usage.account_id, Step.HOUR, start, usage.key_id, usage.model, usage.operation)
        quantities = [usage.quantities.get(unit, 0) for unit in UNITS]
        _add(hours, key, [1, charge.nano_credits, *quantities])
    sums = dict(hours)
    for key, amounts in hours.items():
        _add(sums, key._replace(step=Step.DAY, start=_floor(key.start, _DAY)), amounts)
        _add(sums, key._replace(step=Step.MONTH, start=_month(key.start)), amounts)
    return sums


def _add(sums: dict[SumKey, list[int]], key: SumKey, amounts: list[int]) -> None:
    before = sums.get(key)
    sums[key] = [a + b for a, b in zip(before, amounts, strict=True)] if before else amounts


def _floor(time: datetime, step: timedelta) -> datetime:
    return time - (time - _EPOCH) % step


def _ceiling(time: datetime, step: timedelta) -> datetime:
    return time + (_EPOCH - time) % step


def _month(time: datetime) -> datetime:
    return time.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
