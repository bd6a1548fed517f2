"""Usage that never reaches NATS is found by a reconciliation, sent again and charged once."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from nats.aio.client import Client

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen.credits.v1.credits_service_pb2 import GetAccountRequest, GrantRequest, OpenAccountRequest
from dozen.credits.v1.credits_service_pb2_grpc import CreditsServiceStub
from dozen.models.v1.models_events_pb2 import PriceChanged
from dozen.models.v1.models_pb2 import Price
from dozen_chassis.app import App, Resources
from dozen_chassis.consumer import bind
from dozen_chassis.grpc import open_channel
from dozen_chassis.postgres import Database, Repository
from dozen_chassis.run import serving
from dozen_chassis.settings import ServiceSettings
from dozen_chassis.signing import caller_token
from dozen_credits.app import create_app as create_credits
from dozen_credits.reconcile import reconcile
from dozen_credits.settings import Settings as CreditsSettings
from dozen_inference.replay import HANDLERS, UsageReplay
from dozen_local.nats import NatsServer
from dozen_testing.conditions import eventually
from dozen_testing.databases import TestDatabases

pytestmark = pytest.mark.integration

SERVICES = ("chat", "completion", "embeddings", "images", "audio")
FINISHED = datetime.now(UTC) - timedelta(minutes=10)
PERIOD = (f"--start={FINISHED - timedelta(minutes=1)}", f"--end={FINISHED + timedelta(minutes=1)}")
GRANTED = 1_000


async def create_app(settings: ServiceSettings, stack: Resources) -> App:
    """Build a service that does nothing but send again what was reported in its name."""
    database = await stack.postgres(settings.postgres_dsn, keeps=[UsageReported])
    stack.jetstream(settings.nats_url)
    return App(subscriptions=bind(HANDLERS, UsageReplay(stack.service, database)))


@asynccontextmanager
async def settings_of(
    service: str, package: str | None, databases: TestDatabases, nats_server: NatsServer
) -> AsyncIterator[dict[str, Any]]:
    async with databases.fresh(package) as dsn:
        yield {
            "http_host": "127.0.0.1",
            "http_port": 0,
            "grpc_host": "127.0.0.1",
            "grpc_port": 0,
            "grpc_key": secrets.token_hex(32),
            "admission_key": secrets.token_hex(32),
            "postgres_dsn": dsn,
            "nats_url": nats_server.url(service),
            "shutdown_seconds": 5,
        }


def usage(*names: str) -> UsageReported:
    records = []
    for name in names:
        record = UsageRecord(
            request_id=name, account_id="acme", model="m", price_id="p", quantities={"input_tokens": 10}
        )
        record.finished_at.FromDatetime(FINISHED)
        records.append(record)
    return UsageReported(records=records)


async def test_lost_usage_is_charged_once(
    databases: TestDatabases, nats_server: NatsServer, nats_client: Client
) -> None:
    await nats_client.jetstream().add_stream(name="MODELS", subjects=["dozen.models.v1.>"])
    async with AsyncExitStack() as stack:
        values = await stack.enter_async_context(
            settings_of("credits", "dozen_credits", databases, nats_server)
        )
        server = await stack.enter_async_context(
            serving("credits", create_credits, CreditsSettings(**values))
        )
        settings = CreditsSettings(**{**values, "grpc_port": server.grpc_port})
        token = caller_token(bytes.fromhex(values["grpc_key"]), "test")
        credits = CreditsServiceStub(
            await stack.enter_async_context(open_channel(f"127.0.0.1:{server.grpc_port}", token))
        )
        kept: dict[str, Database] = {}
        for service in SERVICES:
            values = await stack.enter_async_context(settings_of(service, None, databases, nats_server))
            await stack.enter_async_context(serving(service, create_app, ServiceSettings(**values)))
            kept[service] = await Database.open(values["postgres_dsn"], keeps=[UsageReported])
            stack.push_async_callback(kept[service].close)

        async def available() -> int:
            answer = await credits.GetAccount(GetAccountRequest(account_id="acme"))
            return int(answer.account.available_nano_credits)

        async def has(nano_credits: int) -> bool:
            return await available() == nano_credits

        async def run() -> tuple[int, str]:
            written: list[str] = []
            return await reconcile(PERIOD, settings, written.append), "".join(written)

        price = PriceChanged(price=Price(id="p", model_id="m", nano_credits={"input_tokens": 1}))
        await nats_client.jetstream().publish("dozen.models.v1.PriceChanged", price.SerializeToString())
        await credits.OpenAccount(OpenAccountRequest(account_id="acme"))
        await credits.Grant(GrantRequest(account_id="acme", nano_credits=GRANTED, idempotency_key="g"))

        async with Repository(kept["chat"]).transaction() as tx:
            await tx.emit(usage("lost1", "lost2"))
            await tx.db.execute("delete from outbox")
        await Repository(kept["chat"]).emit(usage("arrives"))
        await Repository(kept["audio"]).emit(usage("arrives2"))
        await eventually(lambda: has(GRANTED - 20))

        code, written = await run()
        assert (code, await available()) == (0, GRANTED - 40), written
        assert [line.split()[:3] for line in written.splitlines() if line.startswith("  missing")] == [
            ["missing", "acme", "lost1"],
            ["missing", "acme", "lost2"],
        ]
        code, written = await run()
        assert (code, "missing" in written, await available()) == (0, False, GRANTED - 40), written
