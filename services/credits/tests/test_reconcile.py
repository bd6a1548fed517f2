"""The command that reconciles, against the whole service, real PostgreSQL and NATS."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import nats
import pytest
from google.protobuf.message import Message
from nats.aio.client import Client

from dozen.credits.v1.credits_events_pb2 import UsageRecounted, UsageRecountRequested, UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen.credits.v1.credits_service_pb2 import GetAccountRequest, GrantRequest, OpenAccountRequest
from dozen.credits.v1.credits_service_pb2_grpc import CreditsServiceStub
from dozen.credits.v1.reconciliation_service_pb2 import ListReconciliationsRequest
from dozen.credits.v1.reconciliation_service_pb2_grpc import ReconciliationServiceStub
from dozen.models.v1.models_events_pb2 import PriceChanged
from dozen.models.v1.models_pb2 import Price
from dozen_chassis.grpc import open_channel
from dozen_chassis.run import serving
from dozen_chassis.signing import caller_token
from dozen_credits.app import create_app
from dozen_credits.reconcile import reconcile
from dozen_credits.settings import Settings
from dozen_local.nats import NatsServer
from dozen_testing.conditions import eventually
from dozen_testing.tasks import running

if TYPE_CHECKING:
    from dozen.credits.v1.credits_service_pb2_grpc import CreditsServiceAsyncStub
    from dozen.credits.v1.reconciliation_service_pb2_grpc import ReconciliationServiceAsyncStub

pytestmark = pytest.mark.integration

SERVICES = ("chat", "completion", "embeddings", "images", "audio")
FINISHED = datetime.now(UTC) - timedelta(minutes=10)  # never in what is reconciled by itself
PERIOD = (f"--start={FINISHED - timedelta(minutes=1)}", f"--end={FINISHED + timedelta(minutes=1)}")


def record(request_id: str, tokens: int) -> UsageRecord:
    made = UsageRecord(
        request_id=request_id, account_id="acme", model="m", price_id="p", quantities={"input_tokens": tokens}
    )
    made.finished_at.FromDatetime(FINISHED)
    return made


async def say(client: Client, event: Message) -> None:
    await client.jetstream().publish(
        event.DESCRIPTOR.full_name, event.SerializeToString(), headers={"Nats-Msg-Id": str(uuid.uuid4())}
    )


async def answer(client: Client, service: str, kept: Sequence[UsageRecord]) -> None:
    """Send again, as a service does, what it keeps."""
    asked = await client.jetstream().pull_subscribe(
        "dozen.credits.v1.UsageRecountRequested", f"{service}-UsageRecountRequested", stream="CREDITS"
    )
    while True:
        try:
            (message,) = await asked.fetch(1, timeout=1)
        except nats.errors.TimeoutError:
            continue
        request = UsageRecountRequested.FromString(message.data)
        identified = {"reconciliation_id": request.reconciliation_id, "service": service}
        start, end = request.start.ToDatetime(UTC), request.end.ToDatetime(UTC)
        records = [one for one in kept if start <= one.finished_at.ToDatetime(UTC) < end]
        if records:
            await say(client, UsageReported(records=records, **identified))
        await say(client, UsageRecounted(records=len(records), **identified))
        await message.ack()


@asynccontextmanager
async def answering(server: NatsServer, kept: Mapping[str, Sequence[UsageRecord]]) -> AsyncIterator[None]:
    """Let these services answer for the block."""
    async with AsyncExitStack() as stack:
        for service, records in kept.items():
            client = await stack.enter_async_context(
                await nats.connect(server.url(service), inbox_prefix=f"_INBOX_{service}".encode())
            )
            await stack.enter_async_context(running(answer(client, service, records)))
        yield


class Credits:
    """A running service with an account, a price, and the command beside it."""

    def __init__(self, settings: Settings, channel: Any, written: list[str]) -> None:
        self.grpc: CreditsServiceAsyncStub = CreditsServiceStub(channel)
        self.reconciliations: ReconciliationServiceAsyncStub = ReconciliationServiceStub(channel)
        self.written = written
        self._settings = settings

    async def reconcile(self, *arguments: str) -> tuple[int, str]:
        self.written.clear()
        async with asyncio.timeout(60):
            code = await reconcile(arguments, self._settings, self.written.append)
        return code, "".join(self.written)

    async def available(self) -> int:
        account = (await self.grpc.GetAccount(GetAccountRequest(account_id="acme"))).account
        return account.available_nano_credits


@pytest.fixture
async def credits_service(base_settings: dict[str, Any], nats_client: Client) -> AsyncIterator[Credits]:
    await nats_client.jetstream().add_stream(name="MODELS", subjects=["dozen.models.v1.>"])
    settings = Settings(**base_settings)
    async with serving("credits", create_app, settings) as server:
        settings = settings.model_copy(update={"grpc_port": server.grpc_port})
        token = caller_token(bytes.fromhex(base_settings["grpc_key"]), "test")
        async with open_channel(f"127.0.0.1:{server.grpc_port}", token) as channel:
            service = Credits(settings, channel, [])
            await service.grpc.OpenAccount(OpenAccountRequest(account_id="acme"))
            await service.grpc.Grant(GrantRequest(account_id="acme", nano_credits=100, idempotency_key="g"))
            price = Price(id="p", model_id="m", nano_credits={"input_tokens": 1})
            await say(nats_client, PriceChanged(price=price))
            yield service


async def test_lost_usage_is_charged_and_the_command_says_so(
    credits_service: Credits, nats_client: Client, nats_server: NatsServer
) -> None:
    records = [record("req_1", 5), record("req_2", 7)]
    await say(nats_client, UsageReported(records=records[:1]))
    await eventually(lambda: _has(credits_service, 95))
    async with answering(nats_server, {**dict.fromkeys(SERVICES, ()), "chat": records}):
        code, written = await credits_service.reconcile(*PERIOD)
        assert code == 0, written
        assert [line.split() for line in written.splitlines()[-7:-1]] == [
            ["requests", "credits"],
            ["reported", "2", "0.000000012"],
            ["rated", "2", "0.000000012"],
            ["posted", "2", "0.000000012"],
            ["missing", "1"],
            ["missing", "acme", "req_2", "{}"],
        ]
        assert written.endswith("They agree.\n")
        assert await credits_service.available() == 88
        code, written = await credits_service.reconcile(*PERIOD)
        assert (code, "missing" in written) == (0, False)
        assert await credits_service.available() == 88


async def test_what_differs_makes_the_command_fail(
    credits_service: Credits, nats_client: Client, nats_server: NatsServer
) -> None:
    await say(nats_client, UsageReported(records=[record("req_1", 5)]))
    await eventually(lambda: _has(credits_service, 95))
    async with answering(nats_server, {**dict.fromkeys(SERVICES, ()), "audio": [record("req_1", 6)]}):
        code, written = await credits_service.reconcile(*PERIOD)
    assert code == 1
    assert "mismatched acme req_1" in written
    assert written.endswith("They do not agree.\n")
    listed = await credits_service.reconciliations.ListReconciliations(ListReconciliationsRequest(limit=1))
    (one,) = listed.reconciliations
    assert (dict(one.findings_by_kind), one.agrees) == ({"mismatched": 1}, False)


async def test_the_command_says_for_whom_it_waits(credits_service: Credits, nats_server: NatsServer) -> None:
    silent = dict.fromkeys(SERVICES[1:], ())
    async with answering(nats_server, silent):
        running_command = asyncio.create_task(credits_service.reconcile(*PERIOD))
        await eventually(lambda: _says(credits_service, "0 records; waiting for chat\n"))
        async with answering(nats_server, {"chat": ()}):
            code, _ = await running_command
    assert code == 0


async def test_the_command_says_why_it_cannot(credits_service: Credits) -> None:
    code, written = await credits_service.reconcile("--start=2020-01-01", "--end=2020-01-02T12:00+02:00")
    assert (code, written.startswith("A period begins in the last 34 days")) == (1, True)


async def _has(service: Credits, nano_credits: int) -> bool:
    return await service.available() == nano_credits


async def _says(service: Credits, line: str) -> bool:
    return line in service.written
