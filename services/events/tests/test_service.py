"""Use cases of the events service, on a log in memory."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dozen_events.domain import Limits, NewEvent, PublicEvent
from dozen_events.errors import EventNotFound, InvalidEvent, TooManyStreams
from dozen_events.service import OPEN, EventsService

Pages = AsyncIterator[list[PublicEvent]]


@pytest.fixture
def stopping() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
async def service(fake_log: Any, stopping: asyncio.Event) -> AsyncIterator[EventsService]:
    service = EventsService(fake_log, Limits(streams=3, account_streams=2), stopping)
    ringing = asyncio.create_task(service.ring())
    yield service
    ringing.cancel()


async def opened(
    service: EventsService, account: str = "acme", *, type: str | None = None, after: int | None = None
) -> Pages:
    pages = service.follow(account, type=type, after=after)
    assert await anext(pages) == []
    return pages


async def ids(pages: Pages) -> list[str]:
    async with asyncio.timeout(5):
        return [event.id for event in await anext(pages)]


async def test_an_event_is_appended_once_per_id(service: EventsService, an_event: NewEvent) -> None:
    first = await service.publish(an_event)
    assert await service.publish(replace(an_event, type="job.failed")) == first
    other = await service.publish(replace(an_event, account_id="other"))
    assert other.sequence > first.sequence
    assert await service.find("acme", an_event.id) == first
    with pytest.raises(EventNotFound):
        await service.find("acme", "evt_2")


@pytest.mark.parametrize("data", [{"a": "x" * 17_000}, {"a": float("nan")}, {"a": "\0"}, {"a": "\ud800"}])
async def test_data_that_cannot_be_told_is_refused(
    service: EventsService, an_event: NewEvent, data: dict[str, Any]
) -> None:
    with pytest.raises(InvalidEvent) as refused:
        await service.publish(replace(an_event, data=data))
    assert refused.value.param == "data"


async def test_an_event_without_a_type_is_refused(service: EventsService, an_event: NewEvent) -> None:
    with pytest.raises(InvalidEvent, match="type"):
        await service.publish(replace(an_event, type=""))


async def test_pages_say_whether_there_are_more(service: EventsService, an_event: NewEvent) -> None:
    for number in range(3):
        await service.publish(replace(an_event, id=f"evt_{number}"))
    page, more = await service.page("acme", type=None, after=None, ascending=False, limit=2)
    assert ([event.id for event in page], more) == (["evt_2", "evt_1"], True)
    page, more = await service.page("acme", type=None, after=page[-1].sequence, ascending=False, limit=2)
    assert ([event.id for event in page], more) == (["evt_0"], False)


async def test_a_replay_gives_all_events_behind_a_sequence_and_ends(
    service: EventsService, an_event: NewEvent
) -> None:
    for number in range(250):
        await service.publish(replace(an_event, id=f"evt_{number}"))
    replayed = [event.id async for event in service.replay("acme", 20)]
    assert replayed == [f"evt_{number}" for number in range(20, 250)]


async def test_a_stream_starts_with_what_comes(service: EventsService, an_event: NewEvent) -> None:
    await service.publish(an_event)
    pages = await opened(service)
    waiting = asyncio.create_task(ids(pages))
    await service.publish(replace(an_event, id="evt_o", account_id="other"))
    await service.publish(replace(an_event, id="evt_2"))
    assert await waiting == ["evt_2"]


async def test_a_stream_goes_on_behind_a_sequence(service: EventsService, an_event: NewEvent) -> None:
    first, _ = [await service.publish(replace(an_event, id=f"evt_{n}")) for n in (1, 2)]
    pages = await opened(service, after=first.sequence)
    assert await ids(pages) == ["evt_2"]
    await service.publish(replace(an_event, id="evt_3"))
    assert await ids(pages) == ["evt_3"]


async def test_a_stream_gives_one_type_where_asked(service: EventsService, an_event: NewEvent) -> None:
    pages = await opened(service, type="file.stored")
    await service.publish(an_event)
    await service.publish(replace(an_event, id="evt_2", type="file.stored"))
    assert await ids(pages) == ["evt_2"]


async def test_a_silent_stream_shows_that_it_is_there(fake_log: Any, stopping: asyncio.Event) -> None:
    service = EventsService(fake_log, Limits(streams=1, account_streams=1), stopping, ping_seconds=0.01)
    pages = await opened(service)
    assert await ids(pages) == []
    assert await ids(pages) == []


async def test_a_stream_ends_with_the_service(service: EventsService, stopping: asyncio.Event) -> None:
    pages = await opened(service)
    ending = asyncio.create_task(anext(pages, None))
    await asyncio.sleep(0)
    stopping.set()
    async with asyncio.timeout(5):
        assert await ending is None


async def test_missed_notifications_wake_every_stream(
    service: EventsService, fake_log: Any, an_event: NewEvent
) -> None:
    pages = await opened(service)
    waiting = asyncio.create_task(ids(pages))
    await fake_log.append(an_event)
    assert fake_log.news.get_nowait() == "acme"
    fake_log.news.put_nowait(None)
    assert await waiting == ["evt_1"]


async def test_streams_are_limited_by_account_and_process(service: EventsService) -> None:
    before = OPEN._value.get()
    first, _second = [await opened(service) for _ in range(2)]
    with pytest.raises(TooManyStreams):
        await opened(service)
    _third = await opened(service, "other")
    with pytest.raises(TooManyStreams):
        await opened(service, "third")
    assert OPEN._value.get() == before + 3
    await first.aclose()  # type: ignore[attr-defined]  # a generator
    await opened(service)


async def test_old_events_are_forgotten(service: EventsService, fake_log: Any, an_event: NewEvent) -> None:
    await service.publish(an_event)
    await service.forget(timedelta(days=30))
    assert not fake_log.events
