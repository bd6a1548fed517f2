"""HTTP routes of the events service."""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from dozen_chassis.http import Admitted
from dozen_events.domain import MAX_PAGE, PublicEvent
from dozen_events.schemas import EventList, event_list, sse
from dozen_events.service import EventsService

_STREAM = "text/event-stream"
_STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


def router(events: EventsService) -> APIRouter:
    """Serve `/v1/events`."""
    routes = APIRouter()

    @routes.get("/v1/events", response_model=EventList)
    async def list_events(
        admission: Admitted,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
        after: Annotated[str | None, Query(max_length=64)] = None,
        order: Literal["asc", "desc"] = "desc",
        type: Annotated[str | None, Query(max_length=128)] = None,
        stream: bool = False,
        accept: Annotated[str, Header()] = "",
        last_event_id: Annotated[str | None, Header(max_length=64)] = None,
    ) -> EventList | StreamingResponse:
        if stream or _STREAM in accept:
            cursor = await _sequence(events, admission.account, last_event_id or after)
            pages = events.follow(admission.account, type=type, after=cursor)
            first = await anext(pages)  # here, too many streams are still an answer of their own
            return StreamingResponse(_body(first, pages), media_type=_STREAM, headers=_STREAM_HEADERS)
        found, has_more = await events.page(
            admission.account,
            type=type,
            after=await _sequence(events, admission.account, after),
            ascending=order == "asc",
            limit=limit,
        )
        return event_list(found, has_more)

    return routes


async def _sequence(events: EventsService, account: str, after: str | None) -> int | None:
    """Read a place in the log: a sequence, as streams give it, or an event's id, as pages do."""
    if not after:
        return None
    if after.isascii() and after.isdecimal() and len(after) < 19:
        return int(after)
    return (await events.find(account, after)).sequence


async def _body(first: list[PublicEvent], pages: AsyncIterator[list[PublicEvent]]) -> AsyncIterator[bytes]:
    yield sse(first)
    async for page in pages:
        yield sse(page)
