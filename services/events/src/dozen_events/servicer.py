"""gRPC servicer of the events service."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import grpc.aio

from dozen.events.v1 import events_pb2
from dozen.events.v1.events_service_pb2 import (
    PublishRequest,
    PublishResponse,
    ReplayRequest,
    ReplayResponse,
)
from dozen.events.v1.events_service_pb2_grpc import EventsServiceServicer
from dozen_events.domain import NewEvent, PublicEvent
from dozen_events.errors import InvalidEvent
from dozen_events.service import EventsService


class EventsServicer(EventsServiceServicer):
    """Serves `dozen.events.v1.EventsService`."""

    def __init__(self, events: EventsService) -> None:
        self._events = events

    async def Publish(self, request: PublishRequest, context: grpc.aio.ServicerContext) -> PublishResponse:
        return PublishResponse(event=_message(await self._events.publish(_new_event(request.event))))

    async def Replay(
        self, request: ReplayRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[ReplayResponse]:
        async for event in self._events.replay(request.account_id, request.after_sequence):
            yield ReplayResponse(event=_message(event))


def _new_event(message: events_pb2.PublicEvent) -> NewEvent:
    try:
        data = json.loads(message.data)
    except ValueError as error:
        raise InvalidEvent(f"The event's data is not JSON: {error}.", param="data") from error
    if not isinstance(data, dict):
        raise InvalidEvent("The event's data is not a JSON object.", param="data")
    created_at = message.created_at.ToDatetime(UTC) if message.HasField("created_at") else datetime.now(UTC)
    return NewEvent(message.id, message.account_id, message.type, created_at, data)


def _message(event: PublicEvent) -> events_pb2.PublicEvent:
    message = events_pb2.PublicEvent(
        sequence=event.sequence,
        id=event.id,
        account_id=event.account_id,
        type=event.type,
        data=json.dumps(event.data).encode(),
    )
    message.created_at.FromDatetime(event.created_at)
    return message
