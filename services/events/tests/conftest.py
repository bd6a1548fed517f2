"""What the tests of the events service share: a log in memory."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from dozen_events.domain import NewEvent, PublicEvent


@dataclass
class FakeLog:
    """A log in memory."""

    events: list[PublicEvent] = field(default_factory=list)
    news: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)
    sequence: int = 0

    async def append(self, event: NewEvent) -> PublicEvent | None:
        if await self.find(event.account_id, event.id):
            return None
        self.sequence += 1
        appended = PublicEvent(**asdict(event), sequence=self.sequence)
        self.events.append(appended)
        self.news.put_nowait(event.account_id)
        return appended

    async def find(self, account_id: str, event_id: str) -> PublicEvent | None:
        found = (one for one in self.events if (one.account_id, one.id) == (account_id, event_id))
        return next(found, None)

    async def last_sequence(self, account_id: str) -> int:
        return max((one.sequence for one in self.events if one.account_id == account_id), default=0)

    async def page(
        self, account_id: str, *, type: str | None, after: int | None, ascending: bool, limit: int
    ) -> list[PublicEvent]:
        ordered = self.events if ascending else self.events[::-1]
        return [
            one
            for one in ordered
            if one.account_id == account_id
            and type in (None, one.type)
            and (after is None or (one.sequence > after if ascending else one.sequence < after))
        ][:limit]

    async def forget(self, older_than: timedelta, limit: int) -> int:
        old = [one for one in self.events if one.created_at < datetime.now(UTC) - older_than][:limit]
        self.events = [one for one in self.events if one not in old]
        return len(old)

    async def appended(self) -> AsyncIterator[str | None]:
        yield None
        while True:
            yield await self.news.get()


@pytest.fixture
def fake_log() -> FakeLog:
    """A log in memory."""
    return FakeLog()


@pytest.fixture
def an_event() -> NewEvent:
    """An event of the account `acme`."""
    return NewEvent("evt_1", "acme", "job.completed", datetime(2025, 1, 1, tzinfo=UTC), {"id": "job_1"})
