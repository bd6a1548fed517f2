"""Composition root of the events service."""

from datetime import timedelta

from dozen.events.v1 import events_service_pb2, events_service_pb2_grpc
from dozen_chassis.app import App, Resources
from dozen_chassis.consumer import bind
from dozen_chassis.grpc import GrpcService
from dozen_events import routes
from dozen_events.domain import Limits
from dozen_events.handlers import HANDLERS
from dozen_events.repository import EventsRepository
from dozen_events.service import EventsService
from dozen_events.servicer import EventsServicer
from dozen_events.settings import Settings


async def create_app(settings: Settings, stack: Resources) -> App:
    """Build the service."""
    database = await stack.postgres(settings.postgres_dsn)
    stack.jetstream(settings.nats_url, replicas=settings.nats_replicas)
    limits = Limits(streams=settings.max_streams, account_streams=settings.max_account_streams)
    events = EventsService(EventsRepository(database), limits, stack.health.stopping)
    stack.background("wake streams", events.ring())
    stack.every("forget events", timedelta(hours=1), lambda: events.forget(settings.retention))
    return App(
        routers=[routes.router(events)],
        admission_key=bytes.fromhex(settings.admission_key.get_secret_value()),
        grpc=[
            GrpcService(
                events_service_pb2.DESCRIPTOR,
                events_service_pb2_grpc.add_EventsServiceServicer_to_server,
                EventsServicer(events),
            )
        ],
        subscriptions=bind(HANDLERS, events),
    )
