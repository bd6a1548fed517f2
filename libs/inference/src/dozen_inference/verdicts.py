"""What the end of an attempt says of the deployment, and whether another one may do better."""

import math
from collections.abc import Iterable
from enum import Enum

from dozen_chassis.errors import ServiceError, Status
from dozen_inference.upstream import UpstreamFailed, UpstreamRefused, UpstreamTimeout, UpstreamUnavailable

RETRY_AFTER = "retry-after"
_MOST_REST_SECONDS = 120.0
_REST_SECONDS = 1.0
"""Where a provider does not say how long."""


class Verdict(Enum):
    """How an attempt ended; the value is its label in metrics."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """The caller's mistake, which every deployment would see."""
    ELSEWHERE = "elsewhere"
    """This deployment cannot serve the request, another one may; it is not its fault."""
    LIMITED = "limited"
    """The deployment's provider has had enough of us for now."""
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed_out"
    FAILED = "failed"
    LEFT = "left"
    """Nobody waits for it any more."""
    # Without an attempt:
    UNKNOWN = "unknown"
    """The gateway has heard of the deployment, this process has not, or no more."""
    OPEN = "breaker_open"
    FULL = "bulkhead_full"

    @property
    def failed(self) -> bool | None:
        """Tell whether the deployment was at fault; None where nothing can be said."""
        if self in (Verdict.UNREACHABLE, Verdict.TIMED_OUT, Verdict.FAILED):
            return True
        return None if self in (Verdict.LEFT, Verdict.LIMITED) else False

    @property
    def burdened(self) -> bool:
        """Tell whether the deployment had work with the attempt."""
        return self not in (Verdict.UNREACHABLE, Verdict.UNKNOWN, Verdict.OPEN, Verdict.FULL)


# The most telling error comes first; of two alike, the one that came first.
_TELLING = (
    Verdict.LIMITED, Verdict.TIMED_OUT, Verdict.FAILED, Verdict.UNREACHABLE, Verdict.FULL, Verdict.OPEN,
    Verdict.UNKNOWN, Verdict.ELSEWHERE,
)  # fmt: skip

# Of a server that is asked for nothing but completions these are about itself: no such model or path, too
# slow a connection.
_NOT_THE_CALLERS = (404, 405, 408)


class NoneUsable(ServiceError):
    """No inference server takes requests for this model at the moment; try again later."""

    status = Status.UNAVAILABLE
    code = "upstream_unavailable"


def judge(error: BaseException) -> Verdict:
    """Give the verdict on an attempt that ended in an error."""
    if isinstance(error, UpstreamUnavailable):
        return Verdict.UNREACHABLE
    if isinstance(error, UpstreamTimeout):
        return Verdict.TIMED_OUT
    if isinstance(error, UpstreamFailed):
        return Verdict.FAILED
    if not isinstance(error, ServiceError):
        return Verdict.LEFT
    status = error.http.status
    if status == 429:
        return Verdict.LIMITED
    if status in _NOT_THE_CALLERS or not isinstance(error, UpstreamRefused):
        return Verdict.ELSEWHERE  # the last are ours: what a provider's format cannot say
    return Verdict.REFUSED


def rest_seconds(error: ServiceError) -> float:
    """Give how long to leave a provider alone that has limited us."""
    try:
        seconds = float(error.headers.get(RETRY_AFTER, _REST_SECONDS))
    except ValueError:  # a date
        return _REST_SECONDS
    return min(seconds, _MOST_REST_SECONDS) if seconds > 0 else _REST_SECONDS


def most_telling(ended: Iterable[tuple[Verdict, ServiceError]]) -> tuple[Verdict, ServiceError]:
    """Give the error that says most, of all that were met."""
    return min(ended, key=lambda one: _TELLING.index(one[0]))


def whole_seconds(seconds: float) -> str:
    """Give a time as `retry-after` has it."""
    return str(max(1, math.ceil(seconds)))
