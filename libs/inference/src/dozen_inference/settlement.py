"""Every request with a price ends in one usage record, so that what is held for it is let go."""

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.admission import Admission
from dozen_inference.departure import Receive
from dozen_inference.hold import is_priced
from dozen_inference.usage import usage_record

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Settling(Protocol):
    """What is written where a request ends."""

    @property
    def usage(self) -> UsageRecord | None:
        """What the request used; None where that is not to be reported, or not yet."""
        ...


@dataclass(frozen=True, slots=True)
class Used:
    """What a request used, where nothing else is written with it."""

    usage: UsageRecord


Entry = TypeVar("Entry", bound=Settling)


class Settlements(Generic[Entry]):
    """A log of what requests used, in which those that fail are not forgotten.

    `put` makes an entry durable, even where the caller is cancelled meanwhile; `unused` gives the entry of
    a request that used nothing.
    """

    def __init__(
        self, put: Callable[[Entry], Awaitable[None]], *, unused: Callable[[UsageRecord], Entry]
    ) -> None:
        self._put = put
        self._unused = unused
        self._open: set[str] = set()

    async def put(self, entry: Entry) -> None:
        """Make an entry durable, even where the caller is cancelled meanwhile."""
        if entry.usage is not None:
            self._open.discard(entry.usage.request_id)
        await self._put(entry)

    @asynccontextmanager
    async def follow(self, admission: Admission) -> AsyncIterator[None]:
        """Report that a request used nothing, unless its usage was reported by the end of the block."""
        request_id = admission.request_id
        if is_priced(admission):
            self._open.add(request_id)
        try:
            yield
        finally:
            if request_id in self._open:
                await self.put(self._unused(usage_record(admission, {})))


class FollowedRequests:
    """ASGI middleware: follows every admitted request, whatever ends it and wherever."""

    def __init__(
        self, app: Callable[[Scope, Receive, Send], Awaitable[None]], settlements: Settlements[Any]
    ) -> None:
        self._app = app
        self._settlements = settlements

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        admission: Admission | None = scope.get("admission")
        if admission is None:
            await self._app(scope, receive, send)
            return
        async with self._settlements.follow(admission):
            await self._app(scope, receive, send)
