"""The plugin's fixtures give what they promise."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp
import asyncpg
import nats
import pytest
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from nats.aio.client import Client
from starlette.types import Receive, Scope, Send

from dozen.images.v1 import images_service_pb2, images_service_pb2_grpc
from dozen.images.v1.images_service_pb2 import AnalyzeRequest, AnalyzeResponse
from dozen_chassis.grpc import GrpcService
from dozen_chassis.http import Admitted, create_http
from dozen_chassis.postgres import Database
from dozen_local.nats import NatsServer
from dozen_testing.databases import TestDatabases
from dozen_testing.grpc import channel_to
from dozen_testing.http import Edge, Signer, serve

pytestmark = pytest.mark.integration


async def test_a_database_is_migrated_and_the_next_one_fresh(databases: TestDatabases) -> None:
    for _ in range(2):
        async with databases.fresh(None) as dsn:
            connection = await asyncpg.connect(dsn)
            assert await connection.fetchval("select count(*) from outbox") == 0
            await connection.execute("insert into processed_events (event_id) values ('one')")
            await connection.close()


async def test_a_database_is_dropped_though_somebody_is_connected(databases: TestDatabases) -> None:
    async with databases.fresh(None) as dsn:
        await asyncpg.connect(dsn)
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await asyncpg.connect(dsn)


async def test_the_pool_reaches_the_database(database: Database) -> None:
    await database.ping()


@pytest.mark.parametrize("time", ["first", "second"])
async def test_streams_do_not_outlive_a_test(nats_client: Client, time: str) -> None:
    jetstream = nats_client.jetstream()
    assert await jetstream.streams_info() == [], f"left behind at the {time} time"
    await jetstream.add_stream(name="CREDITS", subjects=["dozen.credits.>"])


async def test_services_have_their_users(nats_server: NatsServer) -> None:
    client = await nats.connect(nats_server.url("chat"), inbox_prefix=b"_INBOX_chat")
    assert client.is_connected
    await client.close()


async def test_the_edge_admits_requests(signer: Signer) -> None:
    router = APIRouter()

    @router.get("/v1/whoami")
    async def whoami(admission: Admitted) -> str:
        return f"{admission.account} {admission.facts['model']}"

    app = create_http("test", [router], admission_key=signer.key)
    signer = Signer(signer.key, facts={"model": "smollm2"})
    async with serve(app) as bare, serve(Edge(app, signer)) as edge, aiohttp.ClientSession() as client:
        assert (await client.get(f"{bare}/v1/whoami")).status == 401
        response = await client.get(f"{edge}/v1/whoami")
        assert (response.status, await response.json()) == (200, "acme smollm2")
        assert response.headers["x-request-id"].startswith("req_")


async def test_a_stream_without_end_does_not_keep_the_server_from_stopping() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def endless() -> AsyncIterator[bytes]:
            yield b"first"
            await asyncio.Event().wait()

        if scope["type"] == "http":
            await StreamingResponse(endless())(scope, receive, send)

    async with aiohttp.ClientSession() as client, serve(app) as url:
        response = await client.get(url)
        assert await response.content.readany() == b"first"


class Images(images_service_pb2_grpc.ImagesServiceServicer):
    """Reads the same text in every image."""

    async def Analyze(self, request: AnalyzeRequest, context: object) -> AnalyzeResponse:  # noqa: N802, the contract's name
        return AnalyzeResponse(text="hello")


async def test_a_channel_reaches_the_servicer() -> None:
    service = GrpcService(
        images_service_pb2.DESCRIPTOR, images_service_pb2_grpc.add_ImagesServiceServicer_to_server, Images()
    )
    async with channel_to(service) as channel:
        stub = images_service_pb2_grpc.ImagesServiceStub(channel)
        answer = await stub.Analyze(AnalyzeRequest(), timeout=5)
    assert answer.text == "hello"
