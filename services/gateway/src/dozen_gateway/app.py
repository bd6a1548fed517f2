"""Composition root of the gateway."""

from starlette.middleware import Middleware
from starlette.routing import Route

from dozen.gateway.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from dozen_chassis.app import App, Resources
from dozen_chassis.consumer import bind
from dozen_chassis.grpc import GrpcService
from dozen_gateway import routes
from dozen_gateway.domain.state import State
from dozen_gateway.edge.edge import Edge
from dozen_gateway.edge.forwarder import Forwarder, open_session
from dozen_gateway.handlers import HANDLERS
from dozen_gateway.repository import GatewayRepository
from dozen_gateway.routes import DecisionEndpoint
from dozen_gateway.service.decisions import DecisionService
from dozen_gateway.service.keys import KeyService
from dozen_gateway.service.read_models import ReadModelService
from dozen_gateway.servicer import GatewayServicer
from dozen_gateway.settings import Settings


async def create_app(settings: Settings, stack: Resources) -> App:
    """Build the service."""
    database = await stack.postgres(settings.postgres_dsn)
    stack.jetstream(settings.nats_url, replicas=settings.nats_replicas)
    repository = GatewayRepository(database)
    state = State()
    read_models = ReadModelService(repository, state)
    stack.background("state", read_models.follow())
    stack.ping("state", read_models.ping)
    keys = KeyService(repository, state)
    decisions = DecisionService(
        state,
        settings.service_addresses,
        bytes.fromhex(settings.admission_master_key.get_secret_value()),
    )
    endpoint = DecisionEndpoint(decisions, bytes.fromhex(settings.grpc_key.get_secret_value()))
    edge = Middleware(
        Edge,
        decisions=decisions,
        forwarder=Forwarder(await stack.enter(open_session())),
        admission_key=bytes.fromhex(settings.admission_key.get_secret_value()),
    )
    return App(
        routers=[routes.router(keys)],
        plain_routes=[Route(DecisionEndpoint.PATH, endpoint, methods=["POST"])],
        middleware=[edge],
        takes_request_ids=False,
        body_limits=[
            ("/v1/audio/", settings.max_audio_body_bytes),
            ("/v1/images/", settings.max_image_body_bytes),
            ("/v1/files", settings.max_upload_body_bytes),
        ],
        grpc=[
            GrpcService(
                gateway_service_pb2.DESCRIPTOR,
                gateway_service_pb2_grpc.add_GatewayServiceServicer_to_server,
                GatewayServicer(decisions, keys),
            )
        ],
        subscriptions=bind(HANDLERS, read_models),
    )
