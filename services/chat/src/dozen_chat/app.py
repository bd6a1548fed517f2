"""Composition root of the chat service."""

from datetime import timedelta

from starlette.middleware import Middleware

from dozen.chat.v1 import chat_service_pb2, chat_service_pb2_grpc
from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen_chassis.app import App, Resources
from dozen_chassis.consumer import bind, concurrently
from dozen_chassis.grpc import GrpcService
from dozen_chassis.outbox import GroupCommit
from dozen_chat import routes
from dozen_chat.handlers import HANDLERS, TASKS
from dozen_chat.repository.requests import RequestRepository
from dozen_chat.service.completions import PATH, ChatService
from dozen_chat.service.log import Entry, write
from dozen_chat.service.tasks import ChatWorker
from dozen_chat.servicer import ChatServicer
from dozen_chat.settings import Settings
from dozen_inference.generation import Generator
from dozen_inference.replay import HANDLERS as RECOUNT
from dozen_inference.replay import UsageReplay
from dozen_inference.settlement import FollowedRequests, Settlements
from dozen_inference.upstream import Upstream


async def create_app(settings: Settings, stack: Resources) -> App:
    """Build the service."""
    database = await stack.postgres(settings.postgres_dsn, keeps=[UsageReported])
    stack.jetstream(settings.nats_url, replicas=settings.nats_replicas)
    requests = RequestRepository(database)
    commits: GroupCommit[Entry] = stack.group_commit(lambda entries: write(requests, entries))
    log: Settlements[Entry] = Settlements(commits.put, unused=Entry)
    upstream = await stack.enter(
        Upstream.open(
            settings.inference_url,
            connect_seconds=settings.connect_seconds,
            idle_seconds=settings.idle_seconds,
        )
    )
    stack.ping("inference", upstream.ping, optional=True)

    def generator(most_requests: int) -> Generator:
        return Generator(
            upstream,
            PATH,
            "chat",
            most_requests=most_requests,
            first_byte_seconds=settings.first_byte_seconds,
            answer_seconds=settings.answer_seconds,
        )

    admission_key = bytes.fromhex(settings.admission_key.get_secret_value())
    chat = ChatService(generator(settings.max_requests), requests, log, most_choices=settings.max_choices)
    # With a limit of its own, so that a full house of waiting clients does not use up a task's attempts.
    worker = ChatWorker(
        generator(settings.task_concurrency),
        requests,
        log,
        admission_key=admission_key,
        most_choices=settings.max_choices,
    )
    stack.every("forget requests", timedelta(hours=1), lambda: chat.forget(settings.log_retention))
    return App(
        plain_routes=routes.routes(chat),
        middleware=[Middleware(FollowedRequests, settlements=log)],
        admission_key=admission_key,
        grpc=[
            GrpcService(
                chat_service_pb2.DESCRIPTOR,
                chat_service_pb2_grpc.add_ChatServiceServicer_to_server,
                ChatServicer(chat, log, admission_key),
            )
        ],
        subscriptions=[
            *concurrently(bind(HANDLERS, worker), settings.task_concurrency, filter=TASKS),
            *bind(RECOUNT, UsageReplay(stack.service, database)),
        ],
    )
