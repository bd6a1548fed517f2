"""Bodies of the events API."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel

from dozen_events.domain import PublicEvent


class EventObject(BaseModel):
    """An event."""

    id: str
    object: Literal["event"] = "event"
    type: str
    created_at: int
    data: Mapping[str, Any]


class EventList(BaseModel):
    """A page of events."""

    object: Literal["list"] = "list"
    data: Sequence[EventObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


def event_object(event: PublicEvent) -> EventObject:
    """Write an event."""
    return EventObject(
        id=event.id, type=event.type, created_at=int(event.created_at.timestamp()), data=event.data
    )


def event_list(events: Sequence[PublicEvent], has_more: bool) -> EventList:
    """Write a page of events."""
    data = [event_object(event) for event in events]
    return EventList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=has_more,
    )


def sse(page: Sequence[PublicEvent]) -> bytes:
    """Write a page as server-sent events; an empty one as a comment, which keeps connections open."""
    if not page:
        return b": ping\n\n"
    return b"".join(
        f"id: {event.sequence}\nevent: {event.type}\n"
        f"data: {json.dumps(event_object(event).model_dump(), separators=(',', ':'))}\n\n".encode()
        for event in page
    )
