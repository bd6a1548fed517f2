"""Composition root of the chat service."""

from datetime import timedelta

from starlette.middleware import Middleware

from dozen.chat.v1 import chat_service_pb2, chat_service_pb2_grpc
from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen_chassis.app import App, Resources
from dozen_chassis.consumer import bind, concurrently
from dozen_chassis.grpc import GrpcService
from dozen_chassis.outbox import GroupCommit
from dozen_chat.domain.turns import Turn
from dozen_chat.handlers import HANDLERS, TASKS
from dozen_chat.repository.conversations import ConversationRepository
from dozen_chat.repository.requests import RequestRepository
from dozen_chat.repository.responses import ResponseRepository
from dozen_chat.routes import completions, conversations, messages, responses
from dozen_chat.service.completions import PATH, ChatService
from dozen_chat.service.contexts import HOLD_AGAIN, Contexts
from dozen_chat.service.conversations import ConversationsService
from dozen_chat.service.log import Entry, write
from dozen_chat.service.messages import MessagesService
from dozen_chat.service.responses import ResponsesService
from dozen_chat.service.tasks import ChatWorker
from dozen_chat.servicer import ChatServicer
from dozen_chat.settings import Settings
from dozen_inference.completions import Completions
from dozen_inference.generation import Generator
from dozen_inference.outcome import HISTORY_SECONDS, Outcome
from dozen_inference.serving import open_proxy
from dozen_inference.settlement import FollowedRequests, Settlements


async def create_app(settings: Settings, stack: Resources) -> App:
    """Build the service."""
    database = await stack.postgres(settings.postgres_dsn, keeps=[UsageReported])
    bus = stack.jetstream(settings.nats_url, replicas=settings.nats_replicas)
    requests = RequestRepository(database)
    history: GroupCommit[Outcome] = stack.group_commit(requests.record, window=HISTORY_SECONDS)
    commits: GroupCommit[Entry] = stack.group_commit(lambda entries: write(requests, entries, history.add))
    log: Settlements[Entry] = Settlements(commits.put, unused=Entry)
    proxy = await open_proxy(settings, stack, database, bus)

    def generator(most_requests: int) -> Generator:
        return Generator(
            proxy.deployments,
            PATH,
            "chat",
            most_requests=most_requests,
            first_byte_seconds=settings.first_byte_seconds,
            answer_seconds=settings.answer_seconds,
        )

    admission_key = bytes.fromhex(settings.admission_key.get_secret_value())
    answering = Completions(
        generator(settings.max_requests),
        proxy.cache,
        proxy.content_filter,
        "messages",
        most_choices=settings.max_choices,
    )
    chat = ChatService(answering, requests, log)
    # With a limit of its own, so that a full house of waiting clients does not use up a task's attempts.
    worker = ChatWorker(
        generator(settings.task_concurrency),
        proxy.content_filter,
        requests,
        log,
        admission_key=admission_key,
        most_choices=settings.max_choices,
    )
    stack.every("forget requests", timedelta(hours=1), lambda: chat.forget(settings.log_retention))
    stored, talks = ResponseRepository(database), ConversationRepository(database)
    turns: GroupCommit[Turn] = stack.group_commit(stored.write)
    contexts = Contexts(stored, talks, settings.max_body_bytes)
    responding = ResponsesService(chat, stored, contexts, turns, most_bytes=settings.max_body_bytes)
    conversing = ConversationsService(talks, contexts)
    stack.every("hold conversations", HOLD_AGAIN, contexts.keep_turns)

    async def forget() -> None:
        await conversing.forget(settings.state_retention)
        await responding.forget(settings.state_retention)

    stack.every("forget responses", timedelta(hours=1), forget)
    return App(
        routers=[responses.router(responding), conversations.router(conversing)],
        hot_paths={
            **completions.hot_paths(chat, log),
            **messages.hot_paths(MessagesService(chat), log),
            **responses.hot_paths(responding, log),
        },
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
            *proxy.subscriptions,
        ],
    )
