"""Holds: opened with each admission, and closed by settlement, failure or age."""

import logging
import time
from collections.abc import Callable
from typing import Protocol

from prometheus_client import Counter, Gauge

from dozen_gateway.domain.decision import Admitted
from dozen_gateway.domain.holds import Hold, Settlement, Settlements
from dozen_gateway.domain.limits import Cost, Measure
from dozen_gateway.domain.state import State

log = logging.getLogger(__name__)

OPEN = Gauge("dozen_gateway_open_holds", "Requests that are promised credits or count against limits.")
OLDEST = Gauge("dozen_gateway_oldest_hold_seconds", "Age of the oldest open hold.")
HELD = Gauge("dozen_gateway_held_nano_credits", "Nano-credits promised to requests that are not settled.")
CLOSED = Counter("dozen_gateway_closed_holds", "Holds closed, by what ended them.", ["reason"])
_CLOSED = {reason: CLOSED.labels(reason) for reason in ("settled", "unsent", "expired")}
EXCEEDED = Counter("dozen_gateway_exceeded_holds", "Requests that cost more than was held for them.")


class Allowance(Protocol):
    """Where what requests count against limits goes back to."""

    def finish(self, costs: tuple[Cost, ...], used_tokens: int) -> None:
        """Take back what was granted beyond what was used, and slots."""
        ...


class HoldService:
    """Opens and closes holds."""

    def __init__(
        self,
        state: State,
        allowance: Allowance,
        hears: Callable[[], bool],
        *,
        longest_request: float,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Let a hold expire `longest_request` seconds after its admission.

        `hears` tells whether settlements can arrive; while they cannot no hold grows older.
        """
        self._state = state
        self._allowance = allowance
        self._hears = hears
        self._longest_request = longest_request
        self._clock = clock
        self._monotonic = monotonic
        self._slots: dict[str, tuple[Cost, ...]] = {}
        self._swept_at = monotonic()

    def open(self, request_id: str, admitted: Admitted, lifetime: float) -> None:
        """Take what an admission promises; nothing else may have been decided since."""
        promise = admitted.promise
        if promise.purse is None and not promise.costs:
            return
        now = self._monotonic()
        lease = None
        if promise.purse is not None:
            lease = promise.purse.lease
            promise.purse.used_at = now
        self.finish(request_id)  # decided on before, and not sent yet
        tokens: tuple[Cost, ...] = ()
        if promise.costs:
            taken = self._state.permits.take(promise.costs)
            tokens = tuple([cost for cost in taken if cost.subject.measure is Measure.TOKENS])
            if slots := tuple([cost for cost in taken if cost.subject.measure is Measure.CONCURRENT]):
                self._slots[request_id] = slots
        holds = self._state.holds
        holds.open(
            Hold(
                request_id=request_id,
                lease=lease,
                nano_credits=promise.nano_credits,
                costs=tokens,
                opened_at=self._clock(),
                expires_at=holds.time + lifetime + self._longest_request,
            )
        )

    def finish(self, request_id: str, *, unsent: bool = False) -> None:
        """Note that a request has ended; one that no service was given has cost nothing."""
        self._state.loads.end(request_id)
        if slots := self._slots.pop(request_id, None):
            self._allowance.finish(slots, 0)
        if unsent:
            self._close(request_id, "unsent")

    def settle(self, settlements: Settlements) -> None:
        """Close the holds of requests that are settled; of what they were promised the rest is free."""
        waiting = self._state.holds.ids()
        for request_id, settlement in settlements.items():
            if request_id in waiting:
                self._close(request_id, "settled", settlement)

    async def sweep(self) -> None:
        """Give up the holds that are too old, and tell how old the others are."""
        holds, now = self._state.holds, self._monotonic()
        elapsed, self._swept_at = now - self._swept_at, now
        if self._hears():
            holds.time += elapsed
        for hold in holds.expired():
            self._close(hold.request_id, "expired")
        OPEN.set(len(holds))
        HELD.set(sum(hold.nano_credits for hold in holds))
        oldest = holds.oldest()
        OLDEST.set(0 if oldest is None else max(0.0, self._clock() - oldest))

    def _close(self, request_id: str, reason: str, settlement: Settlement | None = None) -> None:
        hold = self._state.holds.close(request_id, settlement)
        if hold is None:
            return
        _CLOSED[reason].inc()
        if settlement is not None and settlement.leased_nano_credits > hold.nano_credits:
            EXCEEDED.inc()
            log.error("a request cost more than was held for it", extra={"request": request_id})
        self.finish(request_id)
        if settlement is None and reason != "unsent":
            return  # nobody knows what it used, so it counts as if it had used all
        if hold.costs:
            self._allowance.finish(hold.costs, settlement.tokens if settlement else 0)
