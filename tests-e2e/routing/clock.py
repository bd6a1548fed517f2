"""Virtual time: what is to happen, in its order."""

import heapq
from collections.abc import Callable
from typing import Any


class Clock:
    """Calls what is due; waiting takes no time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._due: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._count = 0

    def later(self, seconds: float, what: Callable[..., object], *args: Any) -> None:
        """Call something after so many seconds; of two at the same moment, the earlier told comes first."""
        self._count += 1
        heapq.heappush(self._due, (self.now + seconds, self._count, what, args))

    def run(self, until: float) -> None:
        """Let the time pass."""
        while self._due and self._due[0][0] <= until:
            self.now, _, what, args = heapq.heappop(self._due)
            what(*args)
        self.now = until
