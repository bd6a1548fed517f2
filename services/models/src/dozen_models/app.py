"""Composition root of the models service."""

from datetime import timedelta

from dozen.models.v1 import models_service_pb2, models_service_pb2_grpc
from dozen.models.v1.models_events_pb2 import UpstreamsObserved
from dozen_chassis.app import App, Resources
from dozen_chassis.grpc import GrpcService
from dozen_models import routes
from dozen_models.clients import open_health_client
from dozen_models.repository import ModelsRepository
from dozen_models.schemas.seed import parse_seed
from dozen_models.service.catalogue import CatalogueService
from dozen_models.service.health import HealthService
from dozen_models.service.store import DEPLOYMENTS_CHANNEL
from dozen_models.servicer import ModelsServicer
from dozen_models.settings import Settings


async def create_app(settings: Settings, stack: Resources) -> App:
    """Build the service."""
    offers = parse_seed(settings.seed_file.read_text()) if settings.seed_file else None
    database = await stack.postgres(settings.postgres_dsn)
    bus = stack.jetstream(settings.nats_url, replicas=settings.nats_replicas)
    repository = ModelsRepository(database)
    catalogue = CatalogueService(repository)
    if offers is not None:
        await catalogue.apply(offers)
    interval = settings.probe_interval
    health = HealthService(repository, await stack.enter(open_health_client(interval)))
    stack.every("announce", timedelta(days=1), catalogue.announce)
    # These run without end; where the database fails them, they begin anew.
    stack.every("probe", interval, lambda: health.probe(interval))
    second = timedelta(seconds=1)
    stack.every("follow", second, lambda: health.follow(database.listen(DEPLOYMENTS_CHANNEL)))
    stack.every("hear", second, lambda: health.hear(bus.hear(UpstreamsObserved)))
    stack.every("forget health", timedelta(hours=1), lambda: health.forget(settings.health_history))
    return App(
        routers=[routes.router(catalogue)],
        admission_key=bytes.fromhex(settings.admission_key.get_secret_value()),
        grpc=[
            GrpcService(
                models_service_pb2.DESCRIPTOR,
                models_service_pb2_grpc.add_ModelsServiceServicer_to_server,
                ModelsServicer(catalogue, health, stack.health.stopping),
            )
        ],
    )
