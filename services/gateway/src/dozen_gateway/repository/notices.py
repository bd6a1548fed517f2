"""Notifications that tell all of a change, so that no replica has to ask for it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from dozen_gateway.domain.holds import Settlement
from dozen_gateway.domain.state import Account, Snapshot

_TOGETHER = 128
_MOST_BYTES = 7999
"""Of a notification of PostgreSQL's."""
_BALANCES, _SETTLED = "balances", "settled"
"""Balances with their versions, and by lease what requests cost."""

Change = tuple[str, Account | Settlement]


def notices(changes: Sequence[Change]) -> Iterator[str]:
    """Write the notifications that tell of balances and settlements, by their ids."""
    for start in range(0, len(changes), _TOGETHER):
        yield from _write(changes[start : start + _TOGETHER])


def is_notice(changed: Mapping[str, Any]) -> bool:
    """Tell whether a notification tells all; others name what is to be read."""
    return _SETTLED in changed


def read_notice(changed: Mapping[str, Any]) -> Snapshot:
    """Read what a notification tells."""
    return Snapshot(
        accounts={id: Account(*balance) for id, balance in changed[_BALANCES].items()},
        settled={
            request_id: Settlement(lease_id, *cost)
            for lease_id, costs in changed[_SETTLED].items()
            for request_id, cost in costs.items()
        },
    )


def _write(changes: Sequence[Change]) -> Iterator[str]:
    """Write notifications of changes: one, unless that is too long."""
    balances: dict[str, tuple[int, int]] = {}
    settled: dict[str, dict[str, tuple[int, int]]] = {}
    for id, one in changes:
        if isinstance(one, Account):
            balances[id] = (one.available_nano_credits, one.version)
        else:
            settled.setdefault(one.lease_id, {})[id] = (one.leased_nano_credits, one.tokens)
    told = msgspec.json.encode({_BALANCES: balances, _SETTLED: settled})
    if len(told) <= _MOST_BYTES:
        yield told.decode()
    elif len(changes) > 1:  # else it is of nobody here: no request that was admitted has such an id
        middle = len(changes) // 2
        yield from _write(changes[:middle])
        yield from _write(changes[middle:])
