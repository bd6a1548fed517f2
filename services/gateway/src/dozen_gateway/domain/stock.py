"""The stock of one limit at one replica."""

import math
from collections.abc import Iterable, Mapping

from dozen_gateway.domain.limits import Cost, Exceeded, Measure, Subject

PERMIT_SECONDS = 1.0
"""How long a permit of a rate may be used once it is drawn."""
SLOT_SECONDS = 60.0
"""How long a replica has its slots without saying so anew."""
RENEWAL_SECONDS = 20.0

_Names = tuple[str, str, str]
_HEADERS: Mapping[Measure, _Names] = {
    measure: (
        f"x-ratelimit-limit-{measure}",
        f"x-ratelimit-remaining-{measure}",
        f"x-ratelimit-reset-{measure}",
    )
    for measure in (Measure.REQUESTS, Measure.TOKENS)
}

_SHORTEST_REFUSAL = 0.02
_LONGEST_REFUSAL = 0.25


class Stock:
    """What a replica has of one limit. All times are monotonic seconds, but for the database's."""

    __slots__ = ("drawn_at", "full_at", "left", "limit", "out", "refused_until", "until", "used")

    def __init__(self) -> None:
        self.limit = 1
        self.left = 0
        """What may still be taken; of a rate, all from one draw."""
        self.until = 0.0
        """When it no longer may."""
        self.drawn_at = 0
        """In the database's nanoseconds."""
        self.out = 0
        """What was taken; of slots, those of requests that run."""
        self.full_at = 0.0
        """When the bucket would be full if nobody drew any more."""
        self.used = 0
        """Slots in use when there was none left."""
        self.refused_until = 0.0

    def refuse(self, refusal: Exceeded, now: float) -> None:
        """Refuse for a while without asking again; not for long, because what is not used comes back."""
        self.used = refusal.used
        self.refused_until = now + min(max(refusal.retry_after, _SHORTEST_REFUSAL), _LONGEST_REFUSAL)

    def refusal(self, cost: Cost, now: float) -> Exceeded | None:
        """Give the refusal of a cost that the stock does not cover; None where the database may grant it."""
        subject, limit, amount, _ = cost
        if now >= self.refused_until:
            return None
        if subject.measure is Measure.CONCURRENT:
            return Exceeded(cost, self.used, 1.0)
        used = max(0.0, self.full_at - now) * limit / 60
        wait = (used + amount - limit) * 60 / limit
        return Exceeded(cost, min(math.ceil(used), limit), wait) if wait > 0 else None

    def standing(self, limit: int, now: float) -> tuple[int, float]:
        """Tell how much of a rate is left, here and with everybody, and in how many seconds all will be."""
        left = self.left if now < self.until else 0
        reset = max(0.0, self.full_at - now - left * 60 / limit)
        # Whole but for what floating point adds.
        return max(0, limit - math.ceil(reset * limit / 60 - 1e-3)), reset


def headers(stocks: Mapping[Subject, Stock], costs: Iterable[Cost], now: float) -> dict[str, str]:
    """Give OpenAI's headers, for the limits that leave the least."""
    tightest: dict[_Names, tuple[int, float, int]] = {}
    for subject, limit, _, _ in costs:
        names = _HEADERS.get(subject.measure)
        if names is None or (stock := stocks.get(subject)) is None:
            continue
        standing = (*stock.standing(limit, now), limit)
        if (least := tightest.get(names)) is None or standing < least:
            tightest[names] = standing
    found: dict[str, str] = {}
    for (limit_name, remaining_name, reset_name), (remaining, reset, limit) in tightest.items():
        found[limit_name] = str(limit)
        found[remaining_name] = str(remaining)
        found[reset_name] = write_duration(reset)
    return found


def write_duration(seconds: float) -> str:
    """Write a time as OpenAI's headers do: `20ms`, `1s`, `6m0s`."""
    milliseconds = math.ceil(seconds * 1000 - 1e-6)
    if 0 < milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, milliseconds = divmod(milliseconds, 60_000)
    return f"{minutes}m{milliseconds / 1000:g}s" if minutes else f"{milliseconds / 1000:g}s"
