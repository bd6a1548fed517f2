"""What was reported, rated and posted, compared."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from dozen_credits.domain.metering import Charge, Price, Usage, rate
from dozen_credits.domain.usage import Step

CLOCKS_APART = timedelta(minutes=5)
"""A request may have finished so much earlier or later by the clock of its service than by others."""
LONGEST_PERIOD = timedelta(days=31)
KEPT = timedelta(days=34)
"""Services keep what they reported for a day longer."""
SETTLED = timedelta(seconds=10)
"""After so long all that was used in a period is reported."""

_COMPARED = (
    "account_id", "key_id", "model", "deployment_id", "operation", "price_id", "quantities", "estimated",
    "lease_id",
)  # fmt: skip
_MORE_THAN = {Step.HOUR: timedelta(hours=1), Step.DAY: timedelta(days=1), Step.MONTH: timedelta(days=31)}


class State(StrEnum):
    """How far a reconciliation has come."""

    RUNNING = "running"
    COMPLETE = "complete"
    INCOMPLETE = "incomplete"


class Outcome(StrEnum):
    """What became of the comparison of a request, and what else can be found."""

    MATCHED = "matched"
    MISSING = "missing"
    """Reported, but not rated until it was sent again."""
    MISMATCHED = "mismatched"
    """Rated otherwise than reported."""
    SET_ASIDE = "set_aside"
    """Reported, and cannot be rated."""
    UNREPORTED = "unreported"
    """Rated, and reported by no service."""
    MISPOSTED = "misposted"
    """Posted otherwise than rated."""
    UNFOUNDED = "unfounded"
    """Posted without being rated."""
    MISSUMMED = "missummed"
    """Sums of an hour that are not those of its usage."""


FINDINGS = tuple(outcome for outcome in Outcome if outcome is not Outcome.MATCHED)


@dataclass(frozen=True, slots=True)
class Period:
    """The requests that finished in [start, end)."""

    start: datetime
    end: datetime

    def can_be_reconciled(self, now: datetime) -> bool:
        """Tell whether it is past, not too long, and not so long ago that services have forgotten it."""
        return (
            now - KEPT <= self.start < self.end <= now - SETTLED and self.end - self.start <= LONGEST_PERIOD
        )

    def hours(self) -> Iterator["Period"]:
        """Cut it at every full hour."""
        for hour in self.whole(Step.HOUR):
            yield Period(max(hour.start, self.start), min(hour.end, self.end))

    def whole(self, step: Step) -> Iterator["Period"]:
        """Give the hours, days or months (UTC) that it has a part of."""
        start = _begin(self.start, step)
        while start < self.end:
            end = _begin(start + _MORE_THAN[step], step)
            yield Period(start, end)
            start = end


@dataclass(frozen=True, slots=True)
class Sum:
    """One of the sides that are compared."""

    requests: int
    nano_credits: int


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """A comparison of a period, and what came of it so far."""

    id: str
    period: Period
    automatic: bool
    state: State
    created_at: datetime
    finished_at: datetime | None = None
    waiting_for: tuple[str, ...] = ()
    """Services that have not sent everything again."""
    received: int = 0
    """Records that were sent again so far."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """Findings by their kind, and the sides `reported`, `rated` and `posted`; empty while it runs."""

    def side(self, name: str) -> Sum:
        """Give one side."""
        return Sum(self.counts.get(name, 0), self.counts.get(f"{name}_nano_credits", 0))

    @property
    def findings(self) -> dict[str, int]:
        """How many there are of each kind that was found."""
        return {kind.value: self.counts[kind] for kind in FINDINGS if self.counts.get(kind)}

    @property
    def agrees(self) -> bool:
        """True where all three say the same, with what was missing and is rated now."""
        return (
            self.state is State.COMPLETE
            and self.side("reported") == self.side("rated") == self.side("posted")
            and not self.findings.keys() - {Outcome.MISSING.value}
        )


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that does not match."""

    kind: str
    account_id: str
    reference: str
    """The id of a request; of sums, what they are of."""
    detail: str
    """What differs, as JSON."""


@dataclass(frozen=True, slots=True)
class Known:
    """A request that was dealt with before: charged, found to have used nothing, or set aside."""

    charge: Charge | None
    """None as well where another account was charged."""
    is_set_aside: bool


@dataclass(frozen=True, slots=True)
class Recount:
    """A request that was sent again, compared."""

    usage: Usage
    nano_credits: int
    """What it costs as it was sent again."""
    outcome: Outcome
    differences: Mapping[str, tuple[object, object]] = field(default_factory=dict)
    """What was reported and what was rated."""
    finished_at: datetime | None = None
    """As rated, where it was."""


def recount(usage: Usage, known: Known | None, price: Price | None) -> Recount | None:
    """Compare what is sent again with what is known; None where nothing was used, and nothing was charged."""
    rated = rate(usage, price)
    cost = rated.nano_credits if isinstance(rated, Charge) else 0
    if known is None:
        return None if usage.is_nothing else Recount(usage, cost, Outcome.MISSING)
    if known.is_set_aside:
        return Recount(usage, cost, Outcome.SET_ASIDE)
    if known.charge is None:
        if usage.is_nothing:
            return None
        return Recount(usage, cost, Outcome.MISMATCHED, {"nano_credits": (cost, None)})
    charge = known.charge
    differences: dict[str, tuple[object, object]] = {
        name: (getattr(usage, name), getattr(charge.usage, name))
        for name in _COMPARED
        if getattr(usage, name) != getattr(charge.usage, name)
    }
    if abs(usage.finished_at - charge.usage.finished_at) > CLOCKS_APART:
        differences["finished_at"] = (usage.finished_at.isoformat(), charge.usage.finished_at.isoformat())
    if cost != charge.nano_credits:
        differences["nano_credits"] = (cost, charge.nano_credits)
    outcome = Outcome.MISMATCHED if differences else Outcome.MATCHED
    return Recount(usage, cost, outcome, differences, charge.usage.finished_at)


def _begin(time: datetime, step: Step) -> datetime:
    day = time.replace(minute=0, second=0, microsecond=0)
    if step is not Step.HOUR:
        day = day.replace(hour=0)
    return day.replace(day=1) if step is Step.MONTH else day
