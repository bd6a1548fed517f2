"""Composition root of the completion service."""

from datetime import timedelta

from starlette.middleware import Middleware

from dozen.completion.v1 import completion_service_pb2, completion_service_pb2_grpc
from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen_chassis.app import App, Resources
from dozen_chassis.grpc import GrpcService
from dozen_chassis.outbox import GroupCommit
from dozen_completion import routes
from dozen_completion.service import PATH, CompletionService, Entry, write
from dozen_completion.servicer import CompletionServicer
from dozen_completion.settings import Settings
from dozen_inference.completions import Completions
from dozen_inference.generation import Generator
from dozen_inference.outcome import HISTORY_SECONDS, Outcome
from dozen_inference.request_log import RequestLogRepository
from dozen_inference.serving import open_proxy
from dozen_inference.settlement import FollowedRequests, Settlements


async def create_app(settings: Settings, stack: Resources) -> App:
    """Build the service."""
    database = await stack.postgres(settings.postgres_dsn, keeps=[UsageReported])
    bus = stack.jetstream(settings.nats_url, replicas=settings.nats_replicas)
    requests = RequestLogRepository(database)
    history: GroupCommit[Outcome] = stack.group_commit(requests.record, window=HISTORY_SECONDS)
    commits: GroupCommit[Entry] = stack.group_commit(lambda entries: write(requests, entries, history.add))
    log: Settlements[Entry] = Settlements(commits.put, unused=Entry)
    proxy = await open_proxy(settings, stack, database, bus)
    generator = Generator(
        proxy.deployments,
        PATH,
        "text_completion",
        most_requests=settings.max_requests,
        first_byte_seconds=settings.first_byte_seconds,
        answer_seconds=settings.answer_seconds,
    )
    answering = Completions(
        generator, proxy.cache, proxy.content_filter, "prompt", most_choices=settings.max_choices
    )
    completion = CompletionService(answering, requests, log)
    stack.every("forget requests", timedelta(hours=1), lambda: completion.forget(settings.log_retention))
    admission_key = bytes.fromhex(settings.admission_key.get_secret_value())
    return App(
        hot_paths=routes.hot_paths(completion, log),
        middleware=[Middleware(FollowedRequests, settlements=log)],
        admission_key=admission_key,
        grpc=[
            GrpcService(
                completion_service_pb2.DESCRIPTOR,
                completion_service_pb2_grpc.add_CompletionServiceServicer_to_server,
                CompletionServicer(completion, log, admission_key),
            )
        ],
        subscriptions=proxy.subscriptions,
    )
