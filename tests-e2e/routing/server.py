"""A server like vLLM: slots, a queue, and a KV cache of blocks that keeps the prefixes it used last."""

from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dozen_gateway.domain.loads import Observation
from routing.clock import Clock
from routing.plan import Plan

Block = tuple[int, int]
"""A part of a prompt: of which text, and the how manieth."""

_AVERAGED_SECONDS = 10.0
"""In which a time to the first byte is forgotten."""


@dataclass(slots=True)
class Request:
    """A turn of a conversation."""

    blocks: list[Block]
    prefix: str
    answer_tokens: int
    answered: Callable[[], None]
    began: float = 0.0
    first_token: float | None = None
    cached: int = 0
    """Blocks that were in the cache."""
    server: int = -1


class Server:
    """Works on requests in the order in which they come."""

    def __init__(self, clock: Clock, plan: Plan, number: int) -> None:
        self._clock = clock
        self._plan = plan
        self.number = number
        self.taken = 0
        self._queue: deque[Request] = deque()
        self._running = 0
        self._pinned = 0
        """Blocks of what it works on."""
        self._kept: OrderedDict[Block, None] = OrderedDict()
        """The one that was not used for longest comes first."""
        self._prefill_until = 0.0
        self._pace = 1.0
        self._held: list[tuple[Callable[..., None], tuple[Any, ...]]] | None = None
        """What would have happened while it hangs."""
        self._seconds, self._seconds_at = 0.0, 0.0

    def take(self, request: Request) -> None:
        """Be asked."""
        self.taken += 1
        request.server = self.number
        self._queue.append(request)
        self._admit()

    def slow_down(self, times: float) -> None:
        """Need so many times as long from now on."""
        self._pace = times

    def hang(self) -> None:
        """Do nothing any more."""
        self._held = []

    def wake_up(self) -> None:
        """Go on."""
        held, self._held = self._held or [], None
        for what, args in held:
            what(*args)
        self._admit()

    def observe(self) -> Observation:
        """Say how it does, as its metrics and the process that calls it do."""
        age = self._clock.now - self._seconds_at
        return Observation(
            requests=self._running + len(self._queue),
            running=self._running,
            waiting=len(self._queue),
            cache_usage=self._pinned / self._plan.cache_blocks,
            first_byte_seconds=self._seconds * 0.5 ** (age / _AVERAGED_SECONDS),
        )

    def _later(self, seconds: float, what: Callable[..., None], *args: Any) -> None:
        self._clock.later(seconds, self._do, what, args)

    def _do(self, what: Callable[..., None], args: tuple[Any, ...]) -> None:
        if self._held is None:
            what(*args)
        else:
            self._held.append((what, args))

    def _admit(self) -> None:
        """Begin what there is room for."""
        while self._held is None and self._queue and self._running < self._plan.slots:
            request = self._queue[0]
            if self._pinned + len(request.blocks) > self._plan.cache_blocks and self._running:
                return
            self._queue.popleft()
            self._running += 1
            self._pinned += len(request.blocks)
            for block in request.blocks:
                if block not in self._kept:
                    break
                request.cached += 1
                self._kept.move_to_end(block)
            work = (len(request.blocks) - request.cached) * self._plan.prefill_seconds * self._pace
            self._prefill_until = max(self._prefill_until, self._clock.now) + work
            self._later(self._prefill_until - self._clock.now, self._answer, request)

    def _answer(self, request: Request) -> None:
        """Give the first token, and so many more."""
        self._keep(request.blocks)
        busy = 1 + self._running / self._plan.slots
        token = self._plan.token_seconds * busy * self._pace
        now = self._clock.now
        request.first_token = now + token
        seconds = now - request.began
        faded = self._seconds * 0.5 ** ((now - self._seconds_at) / _AVERAGED_SECONDS)
        self._seconds, self._seconds_at = max(seconds, faded), now
        self._later(request.answer_tokens * token, self._end, request)

    def _end(self, request: Request) -> None:
        self._running -= 1
        self._pinned -= len(request.blocks)
        self._keep(request.blocks)
        self._admit()
        request.answered()

    def _keep(self, blocks: list[Block]) -> None:
        for block in blocks:
            self._kept[block] = None
            self._kept.move_to_end(block)
        room = max(0, self._plan.cache_blocks - self._pinned)
        while len(self._kept) > room + len(blocks):
            self._kept.popitem(last=False)
