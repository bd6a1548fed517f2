"""Of ten times the calls that a balance pays for, made at once at several gateways, just those succeed."""

import asyncio
import json
import secrets
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import asyncpg
import pytest
from google.protobuf.message import Message
from nats.aio.client import Client
from starlette.types import Receive, Scope, Send

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen.credits.v1.credits_service_pb2 import GrantRequest, OpenAccountRequest
from dozen.credits.v1.credits_service_pb2_grpc import CreditsServiceStub
from dozen.gateway.v1.gateway_service_pb2 import CreateApiKeyRequest
from dozen.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from dozen.models.v1.models_events_pb2 import ModelRegistered, PriceChanged
from dozen.models.v1.models_pb2 import Deployment, Model, Price
from dozen_chassis.admission import Admission, verify
from dozen_chassis.grpc import open_channel
from dozen_chassis.run import Serving, serving
from dozen_chassis.signing import caller_token, derive_key
from dozen_credits.app import create_app as create_credits
from dozen_credits.settings import Settings as CreditsSettings
from dozen_gateway.app import create_app as create_gateway
from dozen_gateway.domain.route_table import ROUTES
from dozen_gateway.settings import Settings as GatewaySettings
from dozen_local.nats import NatsServer
from dozen_testing.conditions import eventually
from dozen_testing.databases import TestDatabases
from dozen_testing.http import serve

pytestmark = pytest.mark.integration

CALLS = 20
REPLICAS = 3
CALL_COST = 1_000_000
"""Of every call here: one token of output, so that none is admitted with less; its input is free."""

GRPC_KEY, MASTER_KEY = secrets.token_hex(32), secrets.token_hex(32)

CHAT = "/v1/chat/completions"
COMPLETION = "/v1/completions"
IMAGES = "/v1/images/analyses"
SERVICES = {CHAT: "chat", COMPLETION: "completion", IMAGES: "images"}
MODELS = {
    "smol": (["chat", "completion"], {"input_tokens": 0, "output_tokens": CALL_COST}),
    "ocr": (["images.analyses"], {"images": CALL_COST}),
}


@dataclass(frozen=True)
class Account:
    """An account and its key."""

    id: str
    key: str


class Upstream:
    """In place of every service: it uses all that was held for a request, and reports that."""

    def __init__(self, report: Callable[[UsageRecord], Awaitable[None]]) -> None:
        self._report = report

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        more = True
        while more:
            more = (await receive()).get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        key = derive_key(bytes.fromhex(MASTER_KEY), f"admission:{SERVICES[scope['path']]}")
        admission = verify(headers, f"POST {scope['path']}", key, time.time())
        await self._report(_usage(admission, scope["path"]))
        body = [(b"content-type", b"application/json"), (b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": body})
        await send({"type": "http.response.body", "body": b"{}"})


def _usage(admission: Admission, path: str) -> UsageRecord:
    facts = admission.facts
    if path == IMAGES:
        quantities = {"images": int(facts["max-units"])}
    else:
        quantities = {"input_tokens": 7, "output_tokens": int(facts["max-tokens"])}
    record = UsageRecord(
        request_id=admission.request_id,
        account_id=admission.account,
        key_id=admission.key,
        model=facts["model"],
        deployment_id=facts["deployments"].split(",")[0],
        operation=admission.operation,
        price_id=facts["price"],
        quantities=quantities,
        lease_id=facts["reservation"],
    )
    record.finished_at.GetCurrentTime()
    return record


@dataclass(frozen=True)
class Platform:
    """Several gateways on one database, credits, and what stands for the other services."""

    credits: Serving
    credits_dsn: str
    gateways: list[Serving]

    async def open_account(self, account: str, nano_credits: int) -> Account:
        """Open an account with credits and a key."""
        async with _channel(self.credits) as channel:
            stub = CreditsServiceStub(channel)
            await stub.OpenAccount(OpenAccountRequest(account_id=account, name="test"))
            await stub.Grant(
                GrantRequest(
                    account_id=account, nano_credits=nano_credits, idempotency_key=account, reason="test"
                )
            )
        async with _channel(self.gateways[0]) as channel:
            created = await GatewayServiceStub(channel).CreateApiKey(
                CreateApiKeyRequest(account_id=account, name="test")
            )
        return Account(account, created.secret)

    async def call(self, http: aiohttp.ClientSession, account: Account, number: int) -> str:
        """Make a call; each number goes another way. Give `ok` or the error's code."""
        gateway = self.gateways[number % len(self.gateways)]
        path = list(SERVICES)[number // len(self.gateways) % len(SERVICES)]
        content = {"messages": [{"role": "user", "content": "Hi"}]} if path == CHAT else {"prompt": "Hi"}
        form = aiohttp.FormData({"model": "ocr"})
        form.add_field("image", b"not looked at", filename="image.png", content_type="image/png")
        async with http.post(
            f"http://127.0.0.1:{gateway.http_port}{path}",
            data=form if path == IMAGES else json.dumps({"model": "smol", "max_tokens": 1, **content}),
            headers={"authorization": f"Bearer {account.key}"},
        ) as answer:
            body = await answer.json()
            return "ok" if answer.ok else str(body["error"]["code"])

    async def balance(self, account: str) -> tuple[int, int, int, int]:
        """Give what is available, what is leased, the number of charged calls and what was not paid."""
        connection = await asyncpg.connect(self.credits_dsn)
        try:
            row: Any = await connection.fetchrow(
                "select available, leased, calls, unpaid from accounts, lateral ("
                "  select count(*) as calls, coalesce(sum(written_off), 0)::bigint as unpaid"
                "  from usage where account_id = accounts.id) as charged where id = $1",
                account,
            )
        finally:
            await connection.close()
        return tuple(row)


@pytest.fixture
async def platform(
    databases: TestDatabases, nats_server: NatsServer, nats_client: Client
) -> AsyncIterator[Platform]:
    """Credits and three gateways in this process, with real databases and NATS."""
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        credits_dsn = await enter(databases.fresh("dozen_credits"))
        gateway_dsn = await enter(databases.fresh("dozen_gateway"))

        def settings(service: str, dsn: str) -> dict[str, Any]:
            return {
                "http_host": "127.0.0.1",
                "http_port": 0,
                "grpc_host": "127.0.0.1",
                "grpc_port": 0,
                "grpc_key": GRPC_KEY,
                "admission_key": derive_key(bytes.fromhex(MASTER_KEY), f"admission:{service}").hex(),
                "postgres_dsn": dsn,
                "nats_url": nats_server.url(service),
                "shutdown_seconds": 5,
            }

        async def report(record: UsageRecord) -> None:
            await _publish(nats_client, UsageReported(records=[record]))

        await nats_client.jetstream().add_stream(name="MODELS", subjects=["dozen.models.v1.>"])
        address = await enter(serve(Upstream(report)))
        credits = await enter(
            serving("credits", create_credits, CreditsSettings(**settings("credits", credits_dsn)))
        )
        own: dict[str, Any] = {
            "admission_master_key": MASTER_KEY,
            "service_addresses": {route.service: address for route in ROUTES},
            "credits_address": f"127.0.0.1:{credits.grpc_port}",
            "credits_token": caller_token(bytes.fromhex(GRPC_KEY), "gateway"),
        }
        gateways = [
            await enter(
                serving("gateway", create_gateway, GatewaySettings(**settings("gateway", gateway_dsn), **own))
            )
            for _ in range(REPLICAS)
        ]
        for model, (capabilities, price) in MODELS.items():
            await _register(nats_client, model, capabilities, price, address)
        yield Platform(credits, credits_dsn, gateways)


async def test_exactly_so_many_succeed_and_nothing_is_left(platform: Platform) -> None:
    account = await platform.open_account("acme", CALLS * CALL_COST)
    attempts = 10 * CALLS
    ready = asyncio.Barrier(attempts)
    connector = aiohttp.TCPConnector(limit=0)
    async with asyncio.timeout(120), aiohttp.ClientSession(connector=connector) as http:
        await _all_know_everything(platform, http)

        async def attempt(number: int) -> str:
            await ready.wait()
            return await platform.call(http, account, number)

        outcomes = Counter(await asyncio.gather(*map(attempt, range(attempts))))
        assert outcomes == {"ok": CALLS, "insufficient_quota": attempts - CALLS}

        async def is_spent() -> bool:
            return await platform.balance(account.id) == (0, 0, CALLS, 0)

        await eventually(is_spent)
        assert await platform.call(http, account, 0) == "insufficient_quota"


async def _all_know_everything(platform: Platform, http: aiohttp.ClientSession) -> None:
    """Wait until each gateway serves each endpoint for an account that was opened later."""
    probe = await platform.open_account("probe", 10**12)
    for number in range(len(platform.gateways) * len(SERVICES)):

        async def serves(number: int = number) -> bool:
            return await platform.call(http, probe, number) == "ok"

        await eventually(serves)


@asynccontextmanager
async def _channel(server: Serving) -> AsyncIterator[Any]:
    token = caller_token(bytes.fromhex(GRPC_KEY), "test")
    async with open_channel(f"127.0.0.1:{server.grpc_port}", token) as channel:
        yield channel


async def _register(
    client: Client, model: str, capabilities: list[str], price: dict[str, int], address: str
) -> None:
    deployments = [
        Deployment(id=f"{model}-{service}", service=service, address=address, priority=1, weight=1)
        for service in SERVICES.values()
    ]
    registered = Model(id=model, capabilities=capabilities, context_length=2048, deployments=deployments)
    await _publish(client, ModelRegistered(model=registered))
    changed = Price(id=f"price-{model}", model_id=model, nano_credits=price)
    changed.effective_from.FromSeconds(1)
    await _publish(client, PriceChanged(price=changed))


async def _publish(client: Client, event: Message) -> None:
    await client.jetstream().publish(
        event.DESCRIPTOR.full_name, event.SerializeToString(), headers={"Nats-Msg-Id": str(uuid.uuid4())}
    )
