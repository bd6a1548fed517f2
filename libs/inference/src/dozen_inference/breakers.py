"""A breaker for each deployment: what keeps failing is left alone for a while, and then tried again."""

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

_SLICES = 10
"""Parts of the window; the oldest is forgotten as a whole."""


class State(Enum):
    """Whether requests may pass."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Terms:
    """When a breaker opens, and for how long."""

    consecutive_failures: int = 5
    error_rate: float = 0.5
    """Of the requests that ended within the window, where there were enough of them."""
    least_requests: int = 20
    window_seconds: float = 10
    cool_down_seconds: float = 1
    """Of the first time; doubles with each time that follows upon it."""
    most_cool_down_seconds: float = 10


class Window:
    """How many requests ended, and how many of them failed, within the last seconds."""

    def __init__(self, seconds: float) -> None:
        self._slice_seconds = seconds / _SLICES
        self._slices: deque[list[int]] = deque()
        self.ended = 0
        self.failed = 0

    def add(self, failed: bool, now: float) -> None:
        """Count a request."""
        number = int(now / self._slice_seconds)
        if not self._slices or self._slices[-1][0] != number:
            while self._slices and self._slices[0][0] <= number - _SLICES:
                _, ended, failures = self._slices.popleft()
                self.ended -= ended
                self.failed -= failures
            self._slices.append([number, 0, 0])
        self._slices[-1][1] += 1
        self._slices[-1][2] += failed
        self.ended += 1
        self.failed += failed


class Breaker:
    """Lets requests pass to one deployment, or not.

    It opens after failures in a row, or when too many of the last requests failed. When it has cooled down
    it is half-open: a single request at a time may try. One that succeeds closes it, one that fails opens
    it for twice as long. Besides, it `rests` where the deployment asks for that.

    A request shows its pass when it has ended. What began before the breaker last changed tells nothing
    about how the deployment does now, and is not counted.
    """

    def __init__(
        self,
        terms: Terms | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._terms = terms or Terms()
        self._clock = clock
        self._jitter = jitter
        self._epoch = 1
        self._closed = True
        self._window = Window(self._terms.window_seconds)
        self._consecutive = 0
        self._opened = 0
        """How many times, without having been closed for as long as a window in between."""
        self._closed_at = float("-inf")
        self._opens_until = 0.0
        self._rests_until = 0.0
        self._trying = False

    @property
    def state(self) -> State:
        """Tell whether requests may pass."""
        now = self._clock()
        if now < self._rests_until or (not self._closed and now < self._opens_until):
            return State.OPEN
        return State.CLOSED if self._closed else State.HALF_OPEN

    def wait(self) -> float:
        """Give the seconds until a request may pass, or try; zero where one may."""
        now = self._clock()
        until = self._rests_until if self._closed else max(self._rests_until, self._opens_until)
        return max(0.0, until - now)

    def enter(self) -> int:
        """Give a request its pass, or zero where it may not pass. `leave` must follow."""
        if self._closed and not self._rests_until:
            return self._epoch
        state = self.state
        if state is State.OPEN or (state is State.HALF_OPEN and self._trying):
            return 0
        self._rests_until = 0.0
        self._trying = state is State.HALF_OPEN
        return self._epoch

    def begin(self, entered: int) -> None:
        """Note that a deployment has begun to answer; for one that is being tried, this is enough."""
        if entered == self._epoch and not self._closed:
            self._epoch += 1
            self._closed, self._trying = True, False
            self._closed_at = self._clock()
            self._consecutive = 0
            self._window = Window(self._terms.window_seconds)

    def leave(self, entered: int, failed: bool | None) -> None:
        """Take back a pass: did the request fail through the deployment's fault? None says nothing of it."""
        if entered != self._epoch:
            return
        if not self._closed:
            if failed:
                self._open()
            elif failed is not None:
                self.begin(entered)
            self._trying = False
            return
        if failed is None:
            return
        self._window.add(failed, self._clock())
        self._consecutive = self._consecutive + 1 if failed else 0
        if failed and self._fails_too_often():
            self._open()

    def rest(self, seconds: float) -> None:
        """Let nothing pass for so long; that is no failure."""
        self._rests_until = max(self._rests_until, self._clock() + seconds)

    def _fails_too_often(self) -> bool:
        terms, window = self._terms, self._window
        return self._consecutive >= terms.consecutive_failures or (
            window.ended >= terms.least_requests and window.failed >= terms.error_rate * window.ended
        )

    def _open(self) -> None:
        terms, now = self._terms, self._clock()
        if self._closed and now - self._closed_at > terms.window_seconds:
            self._opened = 0
        longest = min(terms.most_cool_down_seconds, terms.cool_down_seconds * 2 ** min(self._opened, 30))
        # Replicas that opened together must not try together.
        self._opens_until = now + longest * (0.5 + 0.5 * self._jitter())
        self._opened += 1
        self._epoch += 1
        self._closed = False
