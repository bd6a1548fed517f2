"""Conversations that grow with each turn; many begin with the same long prompt."""

from collections.abc import Callable
from itertools import accumulate
from random import Random

from routing.clock import Clock
from routing.plan import Plan
from routing.server import Block, Request

_APPLICATION_BLOCKS = (8, 24)
_BARE_BLOCKS = 2
_TURN_BLOCKS = 2
_ANSWER_TOKENS = 160
_PREFIX_BLOCKS = 8
"""That a prefix is made from, at most; a smaller power of two where there are fewer."""


class Traffic:
    """Lets conversations begin, and go on when they have been answered."""

    def __init__(self, clock: Clock, plan: Plan, send: Callable[[Request], None]) -> None:
        self._clock = clock
        self._plan = plan
        self._send = send
        self._random = Random(f"traffic {plan.seed}")
        self._texts = plan.applications
        self._lengths = [self._random.randint(*_APPLICATION_BLOCKS) for _ in range(plan.applications)]
        self._popular = list(accumulate(1 / (rank + 1) ** plan.skew for rank in range(plan.applications)))
        self.requests: list[Request] = []

    def begin(self) -> None:
        """Let a conversation begin, and then others."""
        random, plan = self._random, self._plan
        self._clock.later(random.expovariate(plan.conversations), self.begin)
        self._texts += 1
        prompt: list[Block] = []
        length = _BARE_BLOCKS
        if random.random() >= plan.bare:
            (application,) = random.choices(range(plan.applications), cum_weights=self._popular)
            prompt = [(application, number) for number in range(self._lengths[application])]
            length = 0
        self._turn(prompt, self._texts, length, random.randint(1, plan.turns))

    def _turn(self, prompt: list[Block], text: int, length: int, left: int) -> None:
        length += _TURN_BLOCKS
        blocks = prompt + [(text, number) for number in range(length)]
        request = Request(
            blocks=blocks,
            prefix=_prefix(blocks),
            answer_tokens=max(1, round(self._random.expovariate(1 / _ANSWER_TOKENS))),
            answered=lambda: self._think(prompt, text, length + 1, left - 1),
            began=self._clock.now,
        )
        self.requests.append(request)
        self._send(request)

    def _think(self, prompt: list[Block], text: int, length: int, left: int) -> None:
        if left:
            pause = self._random.expovariate(1 / self._plan.thinking_seconds)
            self._clock.later(pause, self._turn, prompt, text, length, left)


def _prefix(blocks: list[Block]) -> str:
    size = min(1 << (len(blocks).bit_length() - 1), _PREFIX_BLOCKS)
    return repr(blocks[:size])
