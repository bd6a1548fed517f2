"""Models that run inside a service: loaded once, on threads of their own, behind a bounded queue."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Generic, ParamSpec, TypeVar

from dozen_chassis.errors import ServiceError, Status

Engine = TypeVar("Engine")
Item = TypeVar("Item")
Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

_END = object()


class ModelNotInstalled(ServiceError):
    """The packages of this model are not installed on this server."""

    status = Status.UNAVAILABLE
    code = "model_not_installed"


class ModelNotLoaded(ServiceError):
    """The model is still being loaded; try again in a moment."""

    status = Status.UNAVAILABLE
    code = "model_not_loaded"


class ModelOverloaded(ServiceError):
    """Too many requests are waiting for this model; try again later."""

    status = Status.UNAVAILABLE
    code = "model_overloaded"


def spare_cores() -> int:
    """Give how many threads a model should compute with: one core stays free for everything else."""
    return max(1, (os.cpu_count() or 1) - 1)


class LocalModel(Generic[Engine]):
    """A model whose engine blocks; the event loop never does.

    Work is cut into steps, each one call on the model's threads. A request whose client has gone asks
    for no further step, so at most one step is computed for nobody, and the steps of several requests
    take turns.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], Engine],
        *,
        packages: Sequence[str],
        most_requests: int,
        threads: int = 1,
    ) -> None:
        self.name = name
        self.installed = all(find_spec(package) is not None for package in packages)
        self._load = load
        self._engine: Engine | None = None
        self._most_requests = most_requests
        self._requests = 0
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def load(self) -> None:
        """Load the engine, if it is installed."""
        if self.installed:
            self._engine = await self.run(self._load)

    async def ping(self) -> None:
        """Raise unless the model can be used."""
        self._loaded()

    @contextmanager
    def admit(self) -> Iterator[Engine]:
        """Give a request the engine, unless too many have it already."""
        engine = self._loaded()
        if self._requests >= self._most_requests:
            raise ModelOverloaded(headers={"retry-after": "1"})
        self._requests += 1
        try:
            yield engine
        finally:
            self._requests -= 1

    async def run(
        self, step: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Run one step on the model's threads."""
        return await asyncio.wrap_future(self._threads.submit(step, *args, **kwargs))

    async def iterate(self, items: Iterator[Item]) -> AsyncIterator[Item]:
        """Give the items of an iterator whose every step blocks."""
        while (item := await self.run(_next, items)) is not _END:
            yield item  # type: ignore[misc]  # the end is not an item

    def close(self) -> None:
        """End the threads after the step they are at."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _loaded(self) -> Engine:
        if not self.installed:
            raise ModelNotInstalled(headers={"x-should-retry": "false"})
        if self._engine is None:
            raise ModelNotLoaded(headers={"retry-after": "1"})
        return self._engine


def _next(items: Iterator[Item]) -> object:
    return next(items, _END)
