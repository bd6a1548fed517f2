"""The use cases of the events service."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from prometheus_client import Counter, Gauge

from dozen_events.domain import MAX_DATA_BYTES, MAX_PAGE, Limits, NewEvent, PublicEvent
from dozen_events.errors import EventNotFound, InvalidEvent, TooManyStreams

APPENDED = Counter("dozen_events_appended_events", "Events appended to the logs of accounts.", ["type"])
OPEN = Gauge("dozen_events_open_streams", "Event streams that are open.")

PING_SECONDS = 15.0
"""After such a silence a stream says that it is still there."""
_FORGET_BATCH = 1000


class Log(Protocol):
    """The log of public events. Those of one account become visible in the order of their sequence."""

    async def append(self, event: NewEvent) -> PublicEvent | None:
        """Append an event to its account's log; None where its id is there already."""
        ...

    async def find(self, account_id: str, event_id: str) -> PublicEvent | None:
        """Find an event of an account."""
        ...

    async def last_sequence(self, account_id: str) -> int:
        """Give the sequence of an account's newest event, 0 where there is none."""
        ...

    async def page(
        self, account_id: str, *, type: str | None, after: int | None, ascending: bool, limit: int
    ) -> list[PublicEvent]:
        """Give events of an account by their sequence, from behind `after`."""
        ...

    async def forget(self, older_than: timedelta, limit: int) -> int:
        """Drop events that are so old; return how many."""
        ...

    def appended(self) -> AsyncIterator[str | None]:
        """Give the account of each event that is appended; None where some may have been missed."""
        ...


class EventsService:
    """Keeps the logs of public events, and tells of them as they grow."""

    def __init__(
        self, log: Log, limits: Limits, stopping: asyncio.Event, *, ping_seconds: float = PING_SECONDS
    ) -> None:
        self._log = log
        self._limits = limits
        self._stopping = stopping
        self._ping_seconds = ping_seconds
        self._bells: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._open = 0

    async def publish(self, event: NewEvent) -> PublicEvent:
        """Append an event to its account's log, once per id; give it as it stands there."""
        _check(event)
        appended = await self._log.append(event)
        if appended is None:
            return await self.find(event.account_id, event.id)
        APPENDED.labels(event.type).inc()
        return appended

    async def find(self, account_id: str, event_id: str) -> PublicEvent:
        """Give an event of an account."""
        found = await self._log.find(account_id, event_id)
        if found is None:
            raise EventNotFound(f"No such event: {event_id[:64]}.", param="after")
        return found

    async def page(
        self, account_id: str, *, type: str | None, after: int | None, ascending: bool, limit: int
    ) -> tuple[list[PublicEvent], bool]:
        """Give events of an account behind the sequence `after`, and whether there are more."""
        found = await self._log.page(account_id, type=type, after=after, ascending=ascending, limit=limit + 1)
        return found[:limit], len(found) > limit

    async def replay(self, account_id: str, after: int) -> AsyncIterator[PublicEvent]:
        """Give the events of an account behind a sequence, oldest first, up to now."""
        while page := await self._next(account_id, None, after):
            for event in page:
                yield event
            after = page[-1].sequence

    async def follow(
        self, account_id: str, *, type: str | None, after: int | None
    ) -> AsyncIterator[list[PublicEvent]]:
        """Give the events of an account behind a sequence, or from now on, until the service stops.

        They come in pages as they are read from the log: nothing is kept for a slow reader. An empty page
        comes first, when the stream is open, and again after each silence.
        """
        with self._bell(account_id) as bell:
            cursor = await self._log.last_sequence(account_id) if after is None else after
            yield []
            while not self._stopping.is_set():
                bell.clear()
                page = await self._next(account_id, type, cursor)
                if page:
                    cursor = page[-1].sequence
                    yield page
                elif not await self._rings(bell):
                    yield []

    async def ring(self) -> None:
        """Wake the streams whose accounts have new events, without end."""
        async for account_id in self._log.appended():
            for woken in [self._bells.get(account_id, ())] if account_id else self._bells.values():
                for bell in woken:
                    bell.set()

    async def forget(self, older_than: timedelta) -> None:
        """Drop events that are so old."""
        while await self._log.forget(older_than, _FORGET_BATCH) == _FORGET_BATCH:
            pass

    async def _next(self, account_id: str, type: str | None, after: int) -> list[PublicEvent]:
        return await self._log.page(account_id, type=type, after=after, ascending=True, limit=MAX_PAGE)

    async def _rings(self, bell: asyncio.Event) -> bool:
        """Wait for the bell or the end of the service; False where nothing happens for a while."""
        waiting = [asyncio.ensure_future(event.wait()) for event in (bell, self._stopping)]
        try:
            done, _ = await asyncio.wait(
                waiting, timeout=self._ping_seconds, return_when=asyncio.FIRST_COMPLETED
            )
            return bool(done)
        finally:
            for waiter in waiting:
                waiter.cancel()

    @contextmanager
    def _bell(self, account_id: str) -> Iterator[asyncio.Event]:
        """Count a stream, and give what rings when its account has new events."""
        if self._open >= self._limits.streams or (
            len(self._bells.get(account_id, ())) >= self._limits.account_streams
        ):
            raise TooManyStreams(headers={"retry-after": "5"})
        bell = asyncio.Event()
        self._bells[account_id].add(bell)
        self._open += 1
        OPEN.inc()
        try:
            yield bell
        finally:
            OPEN.dec()
            self._open -= 1
            self._bells[account_id].discard(bell)
            if not self._bells[account_id]:
                del self._bells[account_id]


def _check(event: NewEvent) -> None:
    if fault := event.fault():
        raise InvalidEvent(f"The event's {fault} is not valid.", param=fault)
    try:
        data = json.dumps(event.data, ensure_ascii=False, allow_nan=False).encode()
    except ValueError as error:
        raise InvalidEvent(f"The event's data is not JSON: {error}.", param="data") from error
    if b"\\u0000" in data:  # in a text of jsonb there is no such letter
        raise InvalidEvent("The event's data has a NUL in it.", param="data")
    if len(data) > MAX_DATA_BYTES:
        raise InvalidEvent(f"The event's data has more than {MAX_DATA_BYTES} bytes.", param="data")
