"""What the database does for a replica in one call: takes back, and shares out to requests in turn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dozen_gateway.domain import gcra
from dozen_gateway.domain.gcra import Bucket
from dozen_gateway.domain.limits import Cost, Exceeded, Measure, Subject, worst

_BUSY_SECONDS = 1.0
"""When to try again where all slots are taken; nobody knows when one is free."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """What a replica has, gives back, and asks for."""

    orders: Sequence[tuple[Cost, ...]] = ()
    """Of one request each: all of it, or nothing."""
    returns: Sequence[Cost] = ()
    """Permits that were drawn and not used."""
    held: Mapping[Subject, int] = field(default_factory=dict)
    """All slots that the replica has, of each subject of which it asks for more or has fewer."""

    def subjects(self) -> set[Subject]:
        """Name all that the exchange is about."""
        ordered = {cost.subject for order in self.orders for cost in order}
        return ordered.union(self.held, (cost.subject for cost in self.returns))


@dataclass(frozen=True, slots=True)
class Answer:
    """What a replica gets."""

    now: int
    """The database's time, in nanoseconds."""
    refusals: Sequence[Exceeded | None]
    """For each order, why it got nothing; None where it got all."""
    granted: Mapping[Subject, int]
    """For all orders together, and what is drawn ahead."""
    lacks: Mapping[Subject, int]
    """How many nanoseconds each bucket lacks after all of that."""


class Allotment:
    """The rows of an exchange's subjects, and what becomes of them; without a clock of its own."""

    def __init__(
        self, buckets: Mapping[Subject, Bucket], others: Mapping[Subject, int], held: Mapping[Subject, int]
    ) -> None:
        """`others` are the slots that other replicas have, `held` those of this one."""
        self.buckets = dict(buckets)
        self.slots = dict(held)
        self._others = others

    def settle(self, exchange: Exchange, now: int) -> Answer:
        """Do what the exchange says at a time of the database."""
        for cost in exchange.returns:
            self.buckets[cost.subject] = gcra.give_back(
                self.buckets[cost.subject], now, cost.limit, cost.amount, cost.drawn_at
            )
        granted: dict[Subject, int] = {}
        refusals: list[Exceeded | None] = []
        for order in exchange.orders:
            refusals.append(refusal := self._serve(order, now))
            for cost in order:
                granted[cost.subject] = granted.get(cost.subject, 0) + (0 if refusal else cost.amount)
        scarce = {refusal.cost.subject for refusal in refusals if refusal}
        for cost in {cost.subject: cost for order in exchange.orders for cost in order}.values():
            already = granted[cost.subject]
            if 0 < already < cost.ahead and cost.subject not in scarce:
                granted[cost.subject] += self._draw(cost, 0, cost.ahead - already, now)
        lacks = {subject: gcra.lack(bucket, now) for subject, bucket in self.buckets.items()}
        return Answer(now, refusals, granted, lacks)

    def _serve(self, order: tuple[Cost, ...], now: int) -> Exceeded | None:
        refusals = [refusal for cost in order if (refusal := self._refusal(cost, now))]
        if not refusals:
            for cost in order:
                self._draw(cost, cost.amount, cost.amount, now)
        return worst(refusals)

    def _refusal(self, cost: Cost, now: int) -> Exceeded | None:
        subject, limit, amount, _ = cost
        if subject.measure is Measure.CONCURRENT:
            if (free := self._free(subject, limit)) >= amount:
                return None
            return Exceeded(cost, limit - max(0, free), _BUSY_SECONDS, amount > limit)
        bucket = self.buckets[subject]
        if (room := gcra.room(bucket, now, limit)) >= amount:
            return None
        wait = gcra.draw(bucket, now, limit, amount, amount).retry_after
        return Exceeded(cost, limit - room, (wait or 0) / 1e9, wait is None)

    def _draw(self, cost: Cost, needed: int, wanted: int, now: int) -> int:
        subject, limit, _, _ = cost
        if subject.measure is Measure.CONCURRENT:
            granted = max(0, min(wanted, self._free(subject, limit)))
            self.slots[subject] += granted
            return granted
        granted, self.buckets[subject], _ = gcra.draw(self.buckets[subject], now, limit, needed, wanted)
        return granted

    def _free(self, subject: Subject, limit: int) -> int:
        return limit - self._others.get(subject, 0) - self.slots[subject]
