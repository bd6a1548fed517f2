"""Two chat services, each with a vLLM beside it, behind the real gateway, with credits that pay for it."""

import secrets
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from nats.aio.client import Client

from dozen.credits.v1.credits_service_pb2 import GrantRequest, OpenAccountRequest
from dozen.credits.v1.credits_service_pb2_grpc import CreditsServiceStub
from dozen.gateway.v1.gateway_service_pb2 import CreateApiKeyRequest
from dozen.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from dozen.models.v1.models_events_pb2 import ModelRegistered, PriceChanged
from dozen.models.v1.models_pb2 import Deployment, Model, Price
from dozen_chassis.grpc import open_channel
from dozen_chassis.run import Serving, serving
from dozen_chassis.signing import caller_token, derive_key
from dozen_chat.app import create_app as create_chat
from dozen_chat.settings import Settings as ChatSettings
from dozen_credits.app import create_app as create_credits
from dozen_credits.settings import Settings as CreditsSettings
from dozen_gateway.app import create_app as create_gateway
from dozen_gateway.domain.route_table import ROUTES
from dozen_gateway.settings import Settings as GatewaySettings
from dozen_local.nats import NatsServer
from dozen_testing.databases import TestDatabases
from dozen_testing.http import Signer
from vllm.server import MODEL, Vllm
from vllm.tiny_llama import CONTEXT

ACCOUNT = "acme"
GRPC_KEY, MASTER_KEY = secrets.token_hex(32), secrets.token_hex(32)
ADMISSION_KEY = derive_key(bytes.fromhex(MASTER_KEY), "admission:chat")


@dataclass(frozen=True)
class Replicas:
    """A gateway, and the chat services behind it."""

    gateway: str
    api_key: str
    chats: Sequence[str]
    """Their URLs; each has the deployment `deployment(number)`."""

    def signer(self, number: int) -> Signer:
        """Admit requests to one of the chat services, past the gateway."""
        facts = {"model": MODEL, "deployments": deployment(number)}
        return Signer(ADMISSION_KEY, account=ACCOUNT, facts=facts)


def deployment(number: int) -> str:
    """Name the deployment of a chat service."""
    return f"tiny-{number}"


@asynccontextmanager
async def run_replicas(
    databases: TestDatabases, nats_server: NatsServer, nats: Client, servers: Sequence[Vllm]
) -> AsyncIterator[Replicas]:
    """Run all of that for the block."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        await nats.jetstream().add_stream(name="MODELS", subjects=["dozen.models.v1.>"])
        dsn = {name: await enter(databases.fresh(f"dozen_{name}")) for name in ("credits", "gateway", "chat")}

        def settings(service: str) -> dict[str, Any]:
            return {
                "http_host": "127.0.0.1",
                "http_port": 0,
                "grpc_host": "127.0.0.1",
                "grpc_port": 0,
                "grpc_key": GRPC_KEY,
                "admission_key": derive_key(bytes.fromhex(MASTER_KEY), f"admission:{service}").hex(),
                "postgres_dsn": dsn[service],
                "nats_url": nats_server.url(service),
                "shutdown_seconds": 5,
            }

        credits = await enter(serving("credits", create_credits, CreditsSettings(**settings("credits"))))
        chats = []
        for number, server in enumerate(servers):
            own: dict[str, Any] = {
                "inference_url": server.url,
                "deployments": frozenset({deployment(number)}),
                "embeddings_address": "127.0.0.1:9",  # where nobody is
                "embeddings_token": "",
            }
            chat = await enter(serving("chat", create_chat, ChatSettings(**settings("chat"), **own)))
            chats.append(f"http://127.0.0.1:{chat.http_port}")
        own = {
            "admission_master_key": MASTER_KEY,
            "service_addresses": {route.service: "http://127.0.0.1:9" for route in ROUTES},
            "credits_address": f"127.0.0.1:{credits.grpc_port}",
            "credits_token": caller_token(bytes.fromhex(GRPC_KEY), "gateway"),
        }
        gateway = await enter(
            serving("gateway", create_gateway, GatewaySettings(**settings("gateway"), **own))
        )
        await _register(nats, chats)
        key = await _open_account(credits, gateway)
        yield Replicas(f"http://127.0.0.1:{gateway.http_port}", key, chats)


async def _open_account(credits: Serving, gateway: Serving) -> str:
    async with _channel(credits) as channel:
        stub = CreditsServiceStub(channel)
        await stub.OpenAccount(OpenAccountRequest(account_id=ACCOUNT, name="test"))
        await stub.Grant(
            GrantRequest(account_id=ACCOUNT, nano_credits=10**12, idempotency_key="once", reason="test")
        )
    async with _channel(gateway) as channel:
        created = await GatewayServiceStub(channel).CreateApiKey(
            CreateApiKeyRequest(account_id=ACCOUNT, name="test")
        )
    return str(created.secret)


@asynccontextmanager
async def _channel(server: Serving) -> AsyncIterator[Any]:
    token = caller_token(bytes.fromhex(GRPC_KEY), "test")
    async with open_channel(f"127.0.0.1:{server.grpc_port}", token) as channel:
        yield channel


async def _register(nats: Client, chats: Sequence[str]) -> None:
    deployments = [
        Deployment(id=deployment(number), service="chat", address=url, priority=1, weight=1)
        for number, url in enumerate(chats)
    ]
    model = Model(id=MODEL, capabilities=["chat"], context_length=CONTEXT, deployments=deployments)
    price = Price(
        id="price-1",
        model_id=MODEL,
        nano_credits={"input_tokens": 10, "cached_input_tokens": 1, "output_tokens": 30},
    )
    price.effective_from.FromSeconds(1)
    for event in (ModelRegistered(model=model), PriceChanged(price=price)):
        await _publish(nats, event)


async def _publish(nats: Client, event: Message) -> None:
    await nats.jetstream().publish(
        event.DESCRIPTOR.full_name, event.SerializeToString(), headers={"Nats-Msg-Id": str(uuid.uuid4())}
    )
