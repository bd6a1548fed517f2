"""The whole gateway: real database and NATS, the official client, and replicas that agree."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aiohttp
import asyncpg
import pytest
from google.protobuf.message import Message
from nats.aio.client import Client
from openai import AsyncOpenAI, AuthenticationError, InternalServerError, NotFoundError, RateLimitError
from starlette.types import Receive, Scope, Send

from dozen.credits.v1 import credits_service_pb2, credits_service_pb2_grpc
from dozen.credits.v1.credits_events_pb2 import CreditsGranted, UsageRated
from dozen.credits.v1.credits_pb2 import Balance, Charge, Lease, UsageRecord
from dozen.credits.v1.credits_service_pb2 import (
    AcquireLeaseRequest,
    AcquireLeaseResponse,
    ReleaseLeaseRequest,
    ReleaseLeaseResponse,
)
from dozen.credits.v1.credits_service_pb2_grpc import CreditsServiceServicer
from dozen.gateway.v1.gateway_events_pb2 import ApiKeyCreated, ApiKeyRevoked, ApiKeyUpdated
from dozen.gateway.v1.gateway_pb2 import RequestFacts
from dozen.gateway.v1.gateway_service_pb2 import (
    CreateApiKeyRequest,
    DecideRequest,
    DecideResponse,
    ListApiKeysRequest,
    ReportOutcomesRequest,
    RequestOutcome,
    RevokeApiKeyRequest,
)
from dozen.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from dozen.models.v1.models_events_pb2 import (
    BREAKER_STATE_HALF_OPEN,
    BREAKER_STATE_OPEN,
    BreakerState,
    ModelRegistered,
    PriceChanged,
    UpstreamObservation,
    UpstreamsObserved,
)
from dozen.models.v1.models_pb2 import Deployment, Model, Price
from dozen_chassis.errors import InvalidRequest, ServiceError
from dozen_chassis.grpc import GrpcService, open_channel, remote_errors, start_grpc
from dozen_chassis.run import serving
from dozen_chassis.signing import caller_token
from dozen_gateway.app import create_app
from dozen_gateway.domain.route_table import ROUTES
from dozen_gateway.settings import Settings
from dozen_testing.databases import TestDatabases
from dozen_testing.http import serve

if TYPE_CHECKING:
    from dozen.gateway.v1.gateway_service_pb2_grpc import GatewayServiceAsyncStub  # in the stub file only

pytestmark = pytest.mark.integration

NO_NATS = "nats://gateway:none@127.0.0.1:1"
CHAT = RequestFacts(method="POST", path="/v1/chat/completions", model="smol")
FILES = RequestFacts(method="GET", path="/v1/files")
JOBS = RequestFacts(method="GET", path="/v1/jobs/job_1")
COMPLETION = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"smol","choices":[{"index":0,'
    b'"finish_reason":"stop","message":{"role":"assistant","content":"hello"}}]}'
)


@dataclass
class Gateway:
    """A running gateway."""

    url: str
    stub: "GatewayServiceAsyncStub"

    async def decide(self, key: str, facts: RequestFacts) -> DecideResponse:
        return await self.stub.Decide(DecideRequest(facts=facts, api_key=key))

    async def until(self, key: str, facts: RequestFacts, code: str | None) -> None:
        """Wait for a decision: a rejection by this code, or with None an admission."""
        while (await self.decide(key, facts)).rejection.code != (code or ""):
            pass


class Ledger(CreditsServiceServicer):
    """Credits with one account, all of whose balance may be leased."""

    def __init__(self) -> None:
        self.available = 0
        self.lease = Lease()
        self.version = 10

    async def AcquireLease(  # noqa: N802
        self, request: AcquireLeaseRequest, context: Any
    ) -> AcquireLeaseResponse:
        added = min(request.wanted_nano_credits, self.available)
        added = added if added >= request.needed_nano_credits else 0
        self.available -= added
        self.version += 1
        if added:
            self.lease.id = "lease_1"
            self.lease.nano_credits += added
        response = AcquireLeaseResponse(
            lease=self.lease,
            added_nano_credits=added,
            balance=Balance(
                account_id=request.account_id, available_nano_credits=self.available, version=self.version
            ),
        )
        response.lifetime.FromSeconds(60)
        return response

    async def ReleaseLease(  # noqa: N802
        self, request: ReleaseLeaseRequest, context: Any
    ) -> ReleaseLeaseResponse:
        self.lease.returned_nano_credits = self.lease.nano_credits - request.held_nano_credits
        return ReleaseLeaseResponse(lease=self.lease)


@asynccontextmanager
async def lending(ledger: Ledger) -> AsyncIterator[dict[str, str]]:
    """Serve a ledger; give the settings of a gateway that asks it."""
    service = GrpcService(
        credits_service_pb2.DESCRIPTOR,
        credits_service_pb2_grpc.add_CreditsServiceServicer_to_server,
        ledger,
    )
    key = b"credits"
    server, port = await start_grpc("127.0.0.1", 0, key, [service])
    try:
        yield {"credits_address": f"127.0.0.1:{port}", "credits_token": caller_token(key, "gateway")}
    finally:
        await server.stop(grace=None)


Start = Callable[..., Any]


@pytest.fixture
async def start(base_settings: dict[str, Any]) -> AsyncIterator[Start]:
    """Runs a gateway."""

    @asynccontextmanager
    async def start(address: str = "http://127.0.0.1:1", **settings: Any) -> AsyncIterator[Gateway]:
        addresses = {route.service: address for route in ROUTES}
        values = {
            "admission_master_key": "ab" * 32,
            "service_addresses": addresses,
            "credits_address": "127.0.0.1:1",
            "credits_token": "none",
        }
        token = caller_token(bytes.fromhex(base_settings["grpc_key"]), "test")
        async with (
            serving("gateway", create_app, Settings(**base_settings | values | settings)) as server,
            open_channel(f"127.0.0.1:{server.grpc_port}", token) as channel,
        ):
            yield Gateway(f"http://127.0.0.1:{server.http_port}", GatewayServiceStub(channel))

    async with asyncio.timeout(60):
        yield start


async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
    """Complete every chat."""
    if scope["type"] == "http":
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": COMPLETION})


async def create_key(gateway: Gateway) -> str:
    created = await gateway.stub.CreateApiKey(CreateApiKeyRequest(account_id="acme", name="test"))
    return created.secret


async def test_what_other_services_tell_of_admits_the_official_client(
    start: Start, nats_client: Client
) -> None:
    jetstream = nats_client.jetstream()
    for domain in ("credits", "models"):
        await jetstream.add_stream(name=domain.upper(), subjects=[f"dozen.{domain}.v1.>"])

    async def publish(event: Message) -> None:
        await jetstream.publish(event.DESCRIPTOR.full_name, event.SerializeToString())

    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serve(upstream))
        ledger = Ledger()  # type: ignore[abstract]  # it does what the gateway asks for
        credits = await stack.enter_async_context(lending(ledger))
        gateway: Gateway = await stack.enter_async_context(start(address, **credits))
        key = await create_key(gateway)
        client = await stack.enter_async_context(
            AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0)
        )

        async def ask() -> str | None:
            answer = await client.chat.completions.create(
                model="smol", messages=[{"role": "user", "content": "hi"}]
            )
            assert (answer._request_id or "").startswith("req_")
            return answer.choices[0].message.content

        await gateway.until(key, CHAT, "model_not_found")
        with pytest.raises(NotFoundError, match="does not exist or you do not have access"):
            await ask()
        deployment = Deployment(id="smol-chat", service="chat", address=address, priority=1, weight=1)
        await publish(
            ModelRegistered(model=Model(id="smol", capabilities=["chat"], deployments=[deployment]))
        )
        price = Price(id="price-1", model_id="smol", nano_credits={"input_tokens": 1})
        await publish(PriceChanged(price=price))
        await gateway.until(key, CHAT, "insufficient_quota")
        with pytest.raises(RateLimitError) as refused:
            await ask()
        assert refused.value.code == refused.value.type == "insufficient_quota"
        ledger.available = 10_000
        balance = Balance(account_id="acme", available_nano_credits=10_000, version=2)
        await publish(CreditsGranted(balance=balance))
        await gateway.until(key, CHAT, None)
        assert await ask() == "hello"
        assert 0 < ledger.lease.nano_credits < 10_000
        while (await gateway.decide(key, CHAT)).rejection.code != "model_unavailable":
            await nats_client.publish(*_seen(BREAKER_STATE_OPEN))
        with pytest.raises(InternalServerError) as unavailable:
            await ask()
        assert float(unavailable.value.response.headers["retry-after-ms"]) >= 2000
        await nats_client.publish(*_seen(BREAKER_STATE_HALF_OPEN))
        await gateway.until(key, CHAT, None)


def _seen(breaker: BreakerState.ValueType) -> tuple[str, bytes]:
    """Give the subject and what one process tells there of its breaker."""
    upstream = UpstreamObservation(deployment_id="smol-chat", breaker=breaker)
    fact = UpstreamsObserved(observer="chat-1", upstreams=[upstream])
    return f"facts.{fact.DESCRIPTOR.full_name}", fact.SerializeToString()


async def test_a_hold_ends_with_its_settlement_at_every_replica(start: Start, nats_client: Client) -> None:
    jetstream = nats_client.jetstream()
    for domain in ("credits", "models"):
        await jetstream.add_stream(name=domain.upper(), subjects=[f"dozen.{domain}.v1.>"])

    async def publish(event: Message) -> None:
        await jetstream.publish(event.DESCRIPTOR.full_name, event.SerializeToString())

    async with AsyncExitStack() as stack:
        ledger = Ledger()  # type: ignore[abstract]  # it does what the gateway asks for
        credits = await stack.enter_async_context(lending(ledger))
        one, _ = [await stack.enter_async_context(start(**credits)) for _ in range(2)]
        key = await create_key(one)
        deployment = Deployment(id="smol-chat", service="chat", address="http://x", priority=1, weight=1)
        model = Model(id="smol", capabilities=["chat"], deployments=[deployment], context_length=2048)
        await publish(ModelRegistered(model=model))
        price = Price(id="price-1", model_id="smol", nano_credits={"input_tokens": 1})
        await publish(PriceChanged(price=price))
        facts = RequestFacts(method="POST", path="/v1/chat/completions", model="smol", body_bytes=44)
        await one.until(key, facts, "insufficient_quota")
        ledger.available = 300  # for one request

        async def ask(request_id: str) -> bool:
            request = DecideRequest(facts=facts, api_key=key, request_id=request_id)
            decision: DecideResponse = await one.stub.Decide(request)
            return decision.HasField("admitted")

        async def until_admitted(request_id: str) -> None:
            while not await ask(request_id):
                pass

        await until_admitted("req_1")
        assert not await ask("req_2")
        failed = UsageRecord(request_id="req_1", account_id="acme", lease_id="lease_1")
        await publish(UsageRated(charges=[Charge(usage=failed)]))
        await until_admitted("req_2")
        assert not await ask("req_3")
        outcome = RequestOutcome(request_id="req_2", unsent=True)
        await one.stub.ReportOutcomes(ReportOutcomesRequest(outcomes=[outcome]))
        assert await ask("req_3")


async def test_keys_are_administered_by_http(start: Start, nats_client: Client) -> None:
    async with AsyncExitStack() as stack:
        gateway: Gateway = await stack.enter_async_context(start())
        key = await create_key(gateway)
        await gateway.until(key, FILES, None)
        client = await stack.enter_async_context(aiohttp.ClientSession(headers={"x-api-key": key}))
        created = await (await client.post(f"{gateway.url}/v1/keys", json={"name": "laptop"})).json()
        assert created["value"].startswith(f"dz-acme-{created['id']}-")
        assert (await gateway.decide(created["value"], FILES)).HasField("admitted")
        page = await (await client.get(f"{gateway.url}/v1/keys", params={"limit": 1})).json()
        assert page["has_more"]
        assert page["first_id"] == page["last_id"] == created["id"]
        assert page["data"] == [{name: value for name, value in created.items() if name != "value"}]
        rotated = await (await client.post(f"{gateway.url}/v1/keys/{created['id']}/rotate")).json()
        for text in (created["value"], rotated["value"]):
            assert (await gateway.decide(text, FILES)).HasField("admitted")
        scope = {"endpoints": ["/v1/jobs"]}
        await client.post(f"{gateway.url}/v1/keys/{created['id']}", json=scope)
        await gateway.until(created["value"], FILES, "insufficient_permissions")
        assert (await gateway.decide(created["value"], JOBS)).HasField("admitted")
        deleted = await client.delete(f"{gateway.url}/v1/keys/{created['id']}")
        assert await deleted.json() == {"id": created["id"], "object": "api_key", "deleted": True}
        await gateway.until(created["value"], FILES, "invalid_api_key")
        page = await (await client.get(f"{gateway.url}/v1/keys")).json()
        assert (len(page["data"]), page["has_more"]) == (1, False)
        assert (await client.delete(f"{gateway.url}/v1/keys/key_none")).status == 404
        assert (await client.post(f"{gateway.url}/v1/keys", json={"name": ""})).status == 400
        assert (await client.get(f"{gateway.url}/v1/keys", params={"limit": 101})).status == 400
        heard = await nats_client.jetstream().subscribe("dozen.gateway.v1.*")
        kinds = {kind.DESCRIPTOR.full_name: kind for kind in (ApiKeyCreated, ApiKeyUpdated, ApiKeyRevoked)}
        told: list[tuple[str, str, int]] = []
        while not told or told[-1][0] != "ApiKeyRevoked":
            message = await heard.next_msg(timeout=10)
            if (kind := kinds.get(message.subject)) is not None:  # all keys may be announced besides
                event = kind.FromString(message.data)
                told.append((event.DESCRIPTOR.name, event.api_key.id, event.api_key.version))
        assert list(dict.fromkeys(told)) == [
            ("ApiKeyCreated", key.split("-")[2], 1),
            ("ApiKeyCreated", created["id"], 1),
            ("ApiKeyUpdated", created["id"], 2),
            ("ApiKeyUpdated", created["id"], 3),
            ("ApiKeyRevoked", created["id"], 4),
        ]


async def test_a_revoked_key_is_refused_by_every_replica_though_nats_is_down(start: Start) -> None:
    async with start(nats_url=NO_NATS) as one, start(nats_url=NO_NATS) as other:
        key = await create_key(one)
        (listed,) = (await one.stub.ListApiKeys(ListApiKeysRequest(account_id="acme"))).api_keys
        await other.until(key, FILES, None)
        await one.stub.RevokeApiKey(RevokeApiKeyRequest(account_id="acme", key_id=listed.id))
        await one.until(key, FILES, "invalid_api_key")
        await other.until(key, FILES, "invalid_api_key")
        client = AsyncOpenAI(base_url=f"{other.url}/v1", api_key=key, max_retries=0)
        async with client:
            with pytest.raises(AuthenticationError, match="Incorrect API key provided"):
                await client.files.list()


async def test_the_account_of_a_key_must_be_one(start: Start) -> None:
    async with start(nats_url=NO_NATS) as gateway:
        with pytest.raises(ServiceError) as refused, remote_errors():
            await gateway.stub.CreateApiKey(CreateApiKeyRequest(account_id="Not One", name="test"))
    assert refused.value.code == "invalid_account_id"
    assert refused.value.status == InvalidRequest.status


async def test_without_its_database_the_gateway_goes_on_with_what_it_knows(
    start: Start, databases: TestDatabases, postgres_dsn: str
) -> None:
    name = urlsplit(postgres_dsn).path.removeprefix("/")
    superuser = await asyncpg.connect(databases.server.superuser_dsn)

    async def database_is(there: bool) -> None:
        await superuser.execute(f'alter database "{name}" with allow_connections {there}')
        if not there:
            await superuser.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1", name
            )

    async def until(url: str, status: int) -> dict[str, Any]:
        async with aiohttp.ClientSession() as client:
            while (response := await client.get(f"{url}/readyz")).status != status:
                pass
            body: dict[str, Any] = await response.json()
            return body

    async with start(nats_url=NO_NATS) as gateway:
        key = await create_key(gateway)
        await until(gateway.url, 200)
        await database_is(False)
        checks = (await until(gateway.url, 503))["checks"]
        assert checks["postgres"] != "ok"
        assert checks["state"] == "ok"
        assert (await gateway.decide(key, FILES)).HasField("admitted")
        async with start(nats_url=NO_NATS) as late:
            assert "NotLoaded" in (await until(late.url, 503))["checks"]["state"]
            assert (await late.decide(key, FILES)).rejection.code == "not_ready"
            await database_is(True)
            await until(late.url, 200)
            assert (await late.decide(key, FILES)).HasField("admitted")
        await until(gateway.url, 200)
    await superuser.close()
