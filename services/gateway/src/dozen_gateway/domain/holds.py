"""Holds: promises of what each request may cost, within leases."""

from collections.abc import Iterator, KeysView, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from dozen_gateway.domain.leases import Lease
from dozen_gateway.domain.limits import Cost


class Hold(NamedTuple):
    """The promise to one request: its most expensive course."""

    request_id: str
    lease: Lease | None
    """None where nothing is to be paid and only limits count."""
    nano_credits: int
    costs: tuple[Cost, ...]
    """The tokens that it counts against limits, as they were taken."""
    opened_at: float
    """Unix seconds."""
    expires_at: float
    """In the time of `Holds`."""
    earlier: "Hold | None" = None
    """Of the same request in another lease: decided on twice, it may go with either answer."""


@dataclass(slots=True)
class Holds:
    """All open holds, by request, in the order in which they were opened.

    Their time stands still while settlements cannot arrive, so that none is given up for lost meanwhile.
    """

    time: float = 0.0
    _open: dict[str, Hold] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Hold]:
        return iter(self._open.values())

    def ids(self) -> KeysView[str]:
        """Name the requests that have one."""
        return self._open.keys()

    def get(self, request_id: str) -> Hold | None:
        """Give the hold of a request."""
        return self._open.get(request_id)

    def open(self, hold: Hold) -> None:
        """Promise; a request that was promised something before may still cost as much."""
        earlier = self._open.pop(hold.request_id, None)
        if earlier is not None:
            if earlier.lease is not hold.lease:
                hold = hold._replace(earlier=earlier)
            else:
                _end(earlier)
                most = max(hold.nano_credits, earlier.nano_credits)
                hold = hold._replace(nano_credits=most, earlier=earlier.earlier)
        if hold.lease is not None:
            hold.lease.held += hold.nano_credits
        self._open[hold.request_id] = hold

    def close(self, request_id: str, settlement: "Settlement | None" = None) -> Hold | None:
        """End a hold; what it promised beyond what the request cost can be promised again."""
        closed = hold = self._open.pop(request_id, None)
        while hold is not None:
            _end(hold)
            # At another replica too there may be a hold of the request, and one lease has paid.
            if settlement is not None and hold.lease is not None and settlement.lease_id == hold.lease.id:
                hold.lease.settled += settlement.leased_nano_credits
            hold = hold.earlier
        return closed

    def expired(self) -> list[Hold]:
        """Give the holds whose settlement is not to be expected any more."""
        return [hold for hold in self._open.values() if hold.expires_at <= self.time]

    def oldest(self) -> float | None:
        """Give the Unix time at which the oldest was opened."""
        return next((hold.opened_at for hold in self._open.values()), None)


class Settlement(NamedTuple):
    """What became of a request."""

    lease_id: str
    leased_nano_credits: int
    """What that lease paid."""
    tokens: int


Settlements = Mapping[str, Settlement]
"""By request."""


def _end(hold: Hold) -> None:
    if hold.lease is not None:
        hold.lease.held -= hold.nano_credits
