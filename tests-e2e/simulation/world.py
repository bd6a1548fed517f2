"""What all parts of a run share: virtual time, one source of chance, and what is noted."""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, TypeVar

_MOST_TURNS = 500_000
_LEAST = 1e-6  # what is less may be nothing beside the time that it is added to

Result = TypeVar("Result")


class Stuck(Exception):
    """Nothing is left that could ever happen, or it never ends."""


class _Clockwork(selectors.SelectSelector):
    """Lets the time pass that others would wait for."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 1000.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._turns += 1
        if timeout is None or self._turns > _MOST_TURNS:
            raise Stuck("all wait for each other" if timeout is None else "it goes on for ever")
        self.time += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on which waiting takes no time, and everything happens in the same order every time."""

    def __init__(self) -> None:
        self._clockwork = _Clockwork()
        super().__init__(self._clockwork)

    def time(self) -> float:
        """Give the virtual time, in seconds."""
        return self._clockwork.time


class World:
    """Time, chance and notes."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.loop = asyncio.get_running_loop()
        self.began = self.loop.time()
        self.lines: list[str] = []
        self.violations: list[str] = []
        self.is_calm = False
        """Whether nothing goes wrong any more."""

    @property
    def time(self) -> float:
        """Seconds since the beginning."""
        return self.loop.time() - self.began

    def note(self, text: str) -> None:
        """Add to the trace."""
        self.lines.append(f"{self.loop.time() - self.began:9.4f}  {text}")

    def expect(self, holds: bool, text: str) -> None:
        """Note a violation unless something holds."""
        if not holds:
            self.violations.append(text)
            self.note(f"VIOLATION: {text}")

    def happens(self, probability: float) -> bool:
        """Throw a die; what would go wrong does not any more once it is calm."""
        return self.random.random() < probability and not self.is_calm

    def later(self, seconds: float, what: Callable[..., object], *args: Any) -> None:
        """Let something happen after some time."""
        self.loop.call_later(seconds, what, *args)

    def start(self, work: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        """Let work run beside."""
        return self.loop.create_task(work)

    async def wait(self, seconds: float) -> None:
        """Let some time pass."""
        over = self.loop.create_future()
        timer = self.loop.call_later(max(seconds, _LEAST), _resolve, over)
        try:
            await over
        finally:
            timer.cancel()

    async def pause(self, probability: float, longest: float) -> None:
        """Let, sometimes, some time pass."""
        if self.random.random() < probability:
            await self.wait(self.random.random() * longest)


def _resolve(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
