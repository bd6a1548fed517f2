"""Composition root of the gateway."""

from datetime import timedelta

from starlette.middleware import Middleware

from dozen.gateway.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from dozen.models.v1.models_events_pb2 import UpstreamsObserved
from dozen_chassis.app import App, Resources
from dozen_chassis.consumer import bind
from dozen_chassis.grpc import GrpcService
from dozen_chassis.signing import derive_key
from dozen_gateway import routes
from dozen_gateway.clients import CreditsClient
from dozen_gateway.domain.state import State
from dozen_gateway.edge.decisions import DecisionEndpoint, OutcomesEndpoint
from dozen_gateway.edge.edge import Edge
from dozen_gateway.edge.forwarder import Forwarder, open_session
from dozen_gateway.edge.inference import PATHS, InferencePath, forwarding_client
from dozen_gateway.handlers import HANDLERS, observations
from dozen_gateway.repository.keys import KeysRepository
from dozen_gateway.repository.limits import LimitsRepository
from dozen_gateway.repository.read_models import ReadModelsRepository
from dozen_gateway.service.account_limits import AccountLimitsService
from dozen_gateway.service.decisions import DecisionService
from dozen_gateway.service.holds import HoldService
from dozen_gateway.service.key_lookups import KeyLookup
from dozen_gateway.service.keys import KeyService
from dozen_gateway.service.leases import LeaseService
from dozen_gateway.service.limits import Limiter
from dozen_gateway.service.loads import LoadService
from dozen_gateway.service.read_models import ReadModelService
from dozen_gateway.servicer import GatewayServicer
from dozen_gateway.settings import Settings

_BEAT_EVERY = timedelta(seconds=2)
_SWEEP_EVERY = timedelta(seconds=1)


async def create_app(settings: Settings, stack: Resources) -> App:
    """Build the service."""
    database = await stack.postgres(settings.postgres_dsn)
    bus = stack.jetstream(settings.nats_url, replicas=settings.nats_replicas)
    state = State()
    limiter = Limiter(LimitsRepository(database), state.permits)
    stack.background("limits", limiter.run())
    holds = HoldService(state, limiter, bus.is_connected, longest_request=settings.longest_request_seconds)
    credits = CreditsClient(stack.channel(settings.credits_address, settings.credits_token))
    leases = await stack.enter(LeaseService(state, credits))
    read_models = ReadModelService(
        ReadModelsRepository(database), state, holds, max_age=settings.max_state_age_seconds
    )
    stack.background("state", read_models.follow())
    stack.ping("state", read_models.ping)
    loads = LoadService(state, longest_request=settings.longest_request_seconds)
    stack.background("loads", loads.follow(observations(bus.hear(UpstreamsObserved))))
    stack.every("forget loads", _SWEEP_EVERY, loads.sweep)
    stack.every("beat", _BEAT_EVERY, read_models.beat)
    stack.every("expire holds", _SWEEP_EVERY, holds.sweep)
    stack.every("renew leases", _SWEEP_EVERY, leases.sweep)
    stack.every("forget settlements", timedelta(hours=1), read_models.forget_settlements)
    stack.every("forget limits", timedelta(hours=1), limiter.forget)
    master_key = bytes.fromhex(settings.admission_master_key.get_secret_value())
    keys = KeyService(KeysRepository(database), state, derive_key(master_key, "api-key-secrets"))
    stack.every("announce keys", timedelta(days=1), keys.announce)
    stack.every("forget key requests", timedelta(hours=1), keys.forget_answers)
    decisions = DecisionService(
        state,
        leases,
        limiter,
        holds,
        KeyLookup(KeysRepository(database), state),
        settings.service_addresses,
        master_key,
    )
    grpc_key = bytes.fromhex(settings.grpc_key.get_secret_value())
    edge = Middleware(
        Edge,
        decisions=decisions,
        forwarder=Forwarder(await stack.enter(open_session())),
        admission_key=bytes.fromhex(settings.admission_key.get_secret_value()),
    )
    client = await stack.enter(forwarding_client())
    return App(
        routers=[routes.router(keys)],
        hot_paths={
            endpoint.PATH: endpoint(decisions, grpc_key) for endpoint in (DecisionEndpoint, OutcomesEndpoint)
        }
        | {
            path: InferencePath(
                path,
                decisions,
                client,
                answer_seconds=settings.longest_request_seconds,
                is_traced=settings.otlp_endpoint is not None,
            )
            for path in PATHS
        },
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
                GatewayServicer(decisions, keys, AccountLimitsService(LimitsRepository(database))),
            )
        ],
        subscriptions=bind(HANDLERS, read_models),
    )
