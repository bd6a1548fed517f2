"""How much each deployment has to do: what its callers told of it, and what this replica has sent since."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

TRUSTED_SECONDS = 3.0
"""How long an observation tells anything; there is one a second."""
FADING = 0.9
"""What is left, an observation later, of a time to the first byte that nothing has confirmed."""
FULL_CACHE = 0.9
"""Part of a KV cache in use from which on requests are likely to be put off."""


@dataclass(frozen=True, slots=True)
class Observation:
    """How a deployment does, as one of the processes that call it sees it."""

    requests: int = 0
    """Of that process."""
    running: int | None = None
    """Of all processes, as the deployment itself tells; None where it does not."""
    waiting: int | None = None
    cache_usage: float | None = None
    """Of its KV cache, from 0 to 1."""
    first_byte_seconds: float = 0.0
    """A moving average that rises at once and falls slowly; 0 where nothing is known."""
    is_open: bool = False
    """Whether the breaker of that process lets nothing pass."""


class _Seen(NamedTuple):
    at: float
    observation: Observation
    seconds: float
    """To the first byte, faded."""


class Load:
    """What one deployment has to do."""

    __slots__ = (
        "_seen",
        "first_byte_seconds",
        "is_pressed",
        "opened",
        "requests",
        "sent",
        "sent_then",
        "until",
    )

    def __init__(self) -> None:
        self.sent = 0
        """Requests that this replica has sent and that have not ended."""
        self.until = float("-inf")
        """Monotonic seconds until which the following holds."""
        self.requests = 0
        """Of all callers together."""
        self.sent_then = 0
        self.is_pressed = False
        """Whether requests wait there, or its KV cache is nearly full."""
        self.first_byte_seconds = 0.0
        self.opened = 0.0
        """Part of its callers whose breakers are open."""
        self._seen: dict[str, _Seen] = {}

    def at(self, monotonic: float) -> int:
        """Estimate the requests there; between observations, what this replica sends counts."""
        if monotonic >= self.until:
            return self.sent
        return max(self.sent, self.requests + self.sent - self.sent_then)

    def observe(self, observer: str, seen: Observation, monotonic: float) -> None:
        """Take over what one of its callers sees, beside what the others saw last."""
        seconds, before = seen.first_byte_seconds, self._seen.get(observer)
        if before is not None and before.observation.first_byte_seconds == seconds:
            seconds = before.seconds * FADING  # nobody was sent there, as nobody would be for ever
        self._seen[observer] = _Seen(monotonic, seen, seconds)
        self._seen = {who: one for who, one in self._seen.items() if monotonic - one.at < TRUSTED_SECONDS}
        fresh = [one.observation for one in self._seen.values()]
        told = [one.running + (one.waiting or 0) for one in fresh if one.running is not None]
        self.until = monotonic + TRUSTED_SECONDS
        # Whoever passes a request on to another process counts it too, so that the sum may be too large.
        self.requests = max(told) if told else sum(one.requests for one in fresh)
        self.sent_then = self.sent
        self.is_pressed = any(one.waiting or (one.cache_usage or 0.0) >= FULL_CACHE for one in fresh)
        self.first_byte_seconds = max(one.seconds for one in self._seen.values())
        self.opened = sum(one.is_open for one in fresh) / len(fresh)


@dataclass(slots=True)
class Loads:
    """The loads of all deployments that are called or observed."""

    known: dict[str, Load] = field(default_factory=dict)
    _requests: dict[str, tuple[Load, float]] = field(default_factory=dict)
    """Those of this replica, with when they began; the longest running first."""

    def begin(self, request_id: str, deployment_id: str, monotonic: float) -> None:
        """Count a request that is about to be sent."""
        self.end(request_id)
        load = self._load(deployment_id)
        load.sent += 1
        self._requests[request_id] = (load, monotonic)

    def end(self, request_id: str) -> None:
        """Count a request no more."""
        ended = self._requests.pop(request_id, None)
        if ended is not None:
            ended[0].sent -= 1

    def observe(self, observer: str, seen: Mapping[str, Observation], monotonic: float) -> None:
        """Take over what one process saw of the deployments that it calls."""
        for deployment_id, observation in seen.items():
            self._load(deployment_id).observe(observer, observation, monotonic)

    def forget(self, monotonic: float, longest_request: float) -> None:
        """Drop what is too old: requests of whose end nobody told, and deployments that nobody calls."""
        for request_id in _older(self._requests.items(), monotonic - longest_request):
            self.end(request_id)
        for deployment_id, load in list(self.known.items()):
            if not load.sent and monotonic >= load.until:
                del self.known[deployment_id]

    def _load(self, deployment_id: str) -> Load:
        load = self.known.get(deployment_id)
        if load is None:
            load = self.known[deployment_id] = Load()
        return load


def _older(requests: Iterable[tuple[str, tuple[Load, float]]], than: float) -> list[str]:
    found = []
    for request_id, (_, began) in requests:
        if began > than:
            break
        found.append(request_id)
    return found
