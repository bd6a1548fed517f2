"""The generic cell rate algorithm, as a token bucket that is exact about permits that come back.

ITU-T I.371 (03/2004), annex A.1, and the ATM Forum's Traffic Management Specification 4.0 (af-tm-0056.000)
keep one number, the theoretical arrival time, and let a cell pass unless it comes too long before that. Here
cells are permits: a bucket holds a minute's worth of them, `limit`, and each costs 60 s / `limit`. All times
are whole nanoseconds. What is drawn is rounded up and what comes back is rounded down, each by less than one
nanosecond, so that nothing drifts beyond a limit.
"""

from collections.abc import Iterable
from typing import NamedTuple

MINUTE = 60_000_000_000

MOST_LOWS = 8
"""Beyond so many, neighbours become one, which can only make what comes back less."""


class Low(NamedTuple):
    """How much a bucket lacked, in nanoseconds, at a moment after which it never lacked less."""

    at: int
    lack: int


class Bucket(NamedTuple):
    """A bucket: full at the theoretical arrival time; its lows, the oldest and lowest first."""

    tat: int = 0
    lows: tuple[Low, ...] = ()


class Draw(NamedTuple):
    """What a bucket gave."""

    granted: int
    bucket: Bucket
    retry_after: int | None = 0
    """Nanoseconds after which what was needed will fit; None where it never will."""


def lack(bucket: Bucket, now: int) -> int:
    """Give the nanoseconds until the bucket is full; a clock that was set back costs at most a minute."""
    return min(max(bucket.tat - now, 0), MINUTE)


def room(bucket: Bucket, now: int, limit: int) -> int:
    """Give how many permits could be drawn."""
    return (MINUTE - lack(bucket, now)) * limit // MINUTE


def draw(bucket: Bucket, now: int, limit: int, needed: int, wanted: int) -> Draw:
    """Draw up to `wanted` permits, or none where there are less than `needed`."""
    lacking, available = lack(bucket, now), room(bucket, now, limit)
    if available < needed:
        return Draw(0, bucket, lacking + _duration(needed, limit) - MINUTE if needed <= limit else None)
    granted = min(max(needed, wanted), available)
    if not granted:
        return Draw(0, bucket)
    lows = _append(bucket.lows, Low(now, lacking))
    return Draw(granted, Bucket(now + lacking + _duration(granted, limit), lows))


def give_back(bucket: Bucket, now: int, limit: int, amount: int, drawn_at: int) -> Bucket:
    """Take back permits that were drawn at a moment: the bucket is then as if they never had been.

    Where it has been nearly full since, less comes back than they cost: what time has replaced does not come
    back a second time. Without them the bucket would have lacked less by their cost, but never less than
    nothing; so no more comes back than the least that it has lacked since they were drawn.
    """
    since = [low for low in bucket.lows if low.at > drawn_at]
    least = min([lack(bucket, now), *(low.lack for low in since)])
    back = min(amount * MINUTE // limit, least)
    lows = tuple(low for low in bucket.lows if low.at <= drawn_at)
    for low in since:
        lows = _append(lows, Low(low.at, low.lack - back))
    return Bucket(bucket.tat - back, lows)


def _duration(amount: int, limit: int) -> int:
    return -(-amount * MINUTE // limit)


def _append(lows: Iterable[Low], new: Low) -> tuple[Low, ...]:
    kept = [low for low in lows if low.lack < new.lack]
    if kept and kept[-1].at >= new.at:
        return tuple(kept)
    kept.append(new)
    if len(kept) > MOST_LOWS:
        closest = min(range(MOST_LOWS), key=lambda index: kept[index + 1].lack - kept[index].lack)
        kept[closest : closest + 2] = [Low(kept[closest + 1].at, kept[closest].lack)]
    return tuple(kept)
