"""Which deployments of a model to try, and in which order.

Those that may take requests come by priority, and those whose breakers are open after them. Among equals a
request with a prefix goes where others with that prefix went, because its KV cache has it: to the first in
the order of weighted rendezvous hashing, or past those that have more than their share of the load (Mirrokni
et al., consistent hashing with bounded loads), where the share of a slow one is smaller, or where requests
queue. Any other request goes to the less busy of two that are drawn by weight (Mitzenmacher, the power of two
choices), where the time to the first byte counts too.
"""

from collections.abc import Mapping
from random import Random
from zlib import crc32

from dozen_gateway.domain.loads import Load
from dozen_gateway.domain.state import Deployment, Model, Place, State

MOST_TRIED = 8
"""Deployments of one model that an admission names at most."""
SHARE = 1.25
"""A deployment with so many times its share of the load is passed over."""
LEAST_LOAD = 4
"""Requests that a deployment may have whatever its share: servers do several at once as fast as one."""
SLOW = 2.0
"""Times to the first byte that differ by no more than this factor count as the same."""
MOST_SLOW = 4.0
"""What is slower still counts as so many times as slow: one answer that took long says little."""

_WORD = (1 << 64) - 1


_Look = tuple[int, bool, float]
"""What is known of a deployment just now: its requests, whether they queue or its KV cache is nearly full,
and the seconds to the first byte, which are 0 where nothing is known."""


def find_deployments(
    model: Model, service: str, prefix: str, state: State, monotonic: float, draw: Random
) -> list[Deployment]:
    """Give the deployments that may take a request, the one to try first in front.

    There are none where nothing is healthy, or where every caller has found that nothing answers.
    """
    found: list[Deployment] = []
    opened: list[Deployment] = []
    loads, usable = state.loads.known, state.usable
    is_hopeless = True
    for tier in model.tiers.get(service, ()):
        ready = []
        for place in tier:
            if not usable.get(place.id, True):
                continue
            load = loads.get(place.id)
            if load is None or load.opened < 0.5 or monotonic >= load.until:
                ready.append(place)
                continue
            opened.append(place.deployment)
            is_hopeless = is_hopeless and load.opened == 1.0
        if len(ready) > 1:
            ready = (
                _by_prefix(ready, prefix, loads, monotonic)
                if prefix
                else _by_load(ready, loads, monotonic, draw)
            )
        found += [place.deployment for place in ready]
    if opened:
        found = found + opened if found or not is_hopeless else []
    return found if len(found) <= MOST_TRIED else found[:MOST_TRIED]


def _by_prefix(places: list[Place], prefix: str, loads: Mapping[str, Load], monotonic: float) -> list[Place]:
    start = crc32(prefix.encode())
    ranked = _ranked(places, [_mix(start ^ place.seed) for place in places])
    if not loads:
        return ranked
    busy, is_pressed, _ = _look(ranked[0], loads, monotonic)
    if busy < LEAST_LOAD and not is_pressed:
        return ranked
    looks = [_look(place, loads, monotonic) for place in ranked]
    times = sorted([seconds for _, _, seconds in looks if seconds])
    slow = SLOW * times[(len(times) - 1) // 2] if times else 0.0
    all_busy = all_weight = 0.0
    weights = []
    for place, (busy, _, seconds) in zip(ranked, looks, strict=True):
        weight = place.weight / min(MOST_SLOW, seconds / slow) if seconds > slow else place.weight
        weights.append(weight)
        all_weight += weight
        all_busy += busy
    share = SHARE * (all_busy + 1) / (all_weight or 1.0)
    calm: list[tuple[float, Place]] = []
    pressed: list[tuple[float, Place]] = []
    beyond: list[tuple[float, Place]] = []
    for place, (busy, is_pressed, _), weight in zip(ranked, looks, weights, strict=True):
        within = busy < LEAST_LOAD or busy < share * weight
        group = beyond if not within else pressed if is_pressed else calm
        group.append((busy / weight if weight else 0.0, place))
    # Where all are pressed, the bound alone still spreads the load, and keeps prefixes where they are.
    order = calm + pressed + beyond
    if order[0][1] is not ranked[0] and order[1][0] < order[0][0]:
        # What is passed on goes to the less busy of two, or all of it would meet at the next.
        order[0], order[1] = order[1], order[0]
    return [place for _, place in order]


def _by_load(places: list[Place], loads: Mapping[str, Load], monotonic: float, draw: Random) -> list[Place]:
    ranked = _ranked(places, [draw.random() for _ in places])
    if loads and ranked[1].weight:
        one, other = ranked[0], ranked[1]
        busy, _, seconds = _look(one, loads, monotonic)
        other_busy, _, other_seconds = _look(other, loads, monotonic)
        idle = 2 / (one.weight + other.weight)  # else nothing to do would be the same, fast or slow
        cost = (busy / one.weight + idle) * _slowness(seconds, other_seconds)
        other_cost = (other_busy / other.weight + idle) * _slowness(other_seconds, seconds)
        if cost > other_cost:
            ranked[0], ranked[1] = other, one
    return ranked


def _look(place: Place, loads: Mapping[str, Load], monotonic: float) -> _Look:
    load = loads.get(place.id)
    if load is None:
        return 0, False, 0.0
    if monotonic >= load.until:
        return load.sent, False, 0.0
    return load.at(monotonic), load.is_pressed, load.first_byte_seconds


def _slowness(seconds: float, other: float) -> float:
    return min(MOST_SLOW, max(1.0, seconds / (SLOW * other))) if other else 1.0


def _ranked(places: list[Place], chances: list[float]) -> list[Place]:
    """Order places by a chance from 0 to 1 each, so that weight shares out who comes first.

    With chances that are drawn it is sampling without replacement (Efraimidis and Spirakis: the largest
    u^(1/weight) comes first), with chances that follow from a key it is weighted rendezvous hashing.
    """
    keys = [
        chance**place.power if place.weight else -1.0 for place, chance in zip(places, chances, strict=True)
    ]
    if len(keys) == 2:
        return places if keys[0] >= keys[1] else [places[1], places[0]]
    order = sorted(range(len(keys)), key=keys.__getitem__, reverse=True)
    return [places[number] for number in order]


def _mix(word: int) -> float:
    """Make a chance of 64 bits, each of which changes all of it (splitmix64's finalizer)."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _WORD
    return ((word ^ (word >> 31)) + 1) / (_WORD + 2)
