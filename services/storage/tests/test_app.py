"""The whole service: the official client, a real object store, the real database and NATS."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import psutil
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from openai import APIStatusError, AsyncOpenAI, BadRequestError, NotFoundError

from dozen.storage.v1.storage_events_pb2 import FileDeleted, FileStored
from dozen.storage.v1.storage_service_pb2 import (
    DeleteRequest,
    GetRequest,
    PutHeader,
    PutRequest,
    StatRequest,
)
from dozen.storage.v1.storage_service_pb2_grpc import StorageServiceStub
from dozen_chassis.grpc import RemoteError, open_channel, remote_errors
from dozen_chassis.postgres import Database
from dozen_chassis.run import serving
from dozen_chassis.signing import caller_token
from dozen_storage.app import create_app
from dozen_storage.domain import Limits
from dozen_storage.objects import ObjectStore
from dozen_storage.repository import FilesRepository
from dozen_storage.service import FilesService
from dozen_storage.settings import Settings
from dozen_testing.clients import openai_client
from dozen_testing.http import Signer

pytestmark = pytest.mark.integration

MIB = 1024 * 1024
FORM = {"content-type": "multipart/form-data; boundary=xyz"}
FORM_HEAD = (
    b'--xyz\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
    b'--xyz\r\ncontent-disposition: form-data; name="file"; filename="big.bin"\r\n\r\n'
)


@dataclass
class Stage:
    """The service and its clients."""

    url: str
    openai: AsyncOpenAI
    signer: Signer
    channel: grpc.aio.Channel
    directory: Path

    def objects(self) -> list[str]:
        return [
            path.relative_to(self.directory).as_posix()
            for path in self.directory.rglob("*")
            if path.is_file()
        ]


@pytest.fixture
async def serve(base_settings: dict[str, Any], signer: Signer, tmp_path: Path) -> Any:
    @asynccontextmanager
    async def serve(**settings: Any) -> AsyncIterator[Stage]:
        settings = {**base_settings, "object_store_url": (tmp_path / "files").as_uri(), **settings}
        async with serving("storage", create_app, Settings(**settings)) as server:
            url = f"http://127.0.0.1:{server.http_port}"
            token = caller_token(bytes.fromhex(settings["grpc_key"]), "jobs")
            async with open_channel(f"127.0.0.1:{server.grpc_port}", token) as channel:
                yield Stage(url, openai_client(url, signer), signer, channel, tmp_path / "files")

    return serve


async def next_event(events: JetStreamContext.PushSubscription) -> bytes:
    return (await events.next_msg(timeout=10)).data


async def test_the_official_client_keeps_files(serve: Any, nats_client: Client) -> None:
    jetstream = nats_client.jetstream()
    await jetstream.add_stream(name="STORAGE", subjects=["dozen.storage.v1.>"])
    stored = await jetstream.subscribe("dozen.storage.v1.FileStored")
    deleted = await jetstream.subscribe("dozen.storage.v1.FileDeleted")
    async with serve() as stage:
        files = stage.openai.files
        created = await files.create(file=("../Mäuse.jsonl", b'{"a": 1}\n'), purpose="batch")
        assert (created.filename, created.bytes, created.purpose) == ("Mäuse.jsonl", 9, "batch")
        assert (created.object, created.status, created.expires_at) == ("file", "processed", None)
        assert await files.retrieve(created.id) == created
        content = await files.content(created.id)
        assert content.content == b'{"a": 1}\n'
        headers = content.response.headers
        assert headers["content-length"] == "9"
        assert headers["content-disposition"] == (
            "attachment; filename=\"M_use.jsonl\"; filename*=UTF-8''M%C3%A4use.jsonl"
        )
        assert headers["x-content-type-options"] == "nosniff"
        assert FileStored.FromString(await next_event(stored)).file.id == created.id
        assert (await files.delete(created.id)).deleted
        assert FileDeleted.FromString(await next_event(deleted)).file.id == created.id
        for call in (files.retrieve, files.content, files.delete):
            with pytest.raises(NotFoundError, match="No such file"):
                await call(created.id)


async def test_the_official_client_lists_page_by_page_and_deletes_on_the_way(serve: Any) -> None:
    async with serve() as stage:
        files = stage.openai.files
        ids = [
            (await files.create(file=b"%d" % n, purpose="vision" if n % 2 else "evals")).id for n in range(5)
        ]
        ascending = [file.id async for file in files.list(limit=2, order="asc")]
        assert sorted(ascending) == ascending
        assert set(ascending) == set(ids)
        assert [file.purpose async for file in files.list(purpose="evals")] == ["evals"] * 3
        async for file in files.list(limit=1):
            await files.delete(file.id)
        assert (await files.list()).data == []


async def test_what_is_wrong_with_an_upload_is_said(serve: Any) -> None:
    async with serve(max_file_bytes=100, max_account_bytes=150) as stage:
        files = stage.openai.files
        with pytest.raises(BadRequestError, match="purpose must be one of assistants"):
            await files.create(file=b"a", purpose="result")
        with pytest.raises(BadRequestError, match="3600"):
            await files.create(
                file=b"a", purpose="batch", expires_after={"anchor": "created_at", "seconds": 10}
            )
        for size in (101, 100_000):
            with pytest.raises(APIStatusError) as refused:
                await files.create(file=b"a" * size, purpose="batch")
            assert (refused.value.status_code, refused.value.code) == (413, "request_too_large")
        await files.create(file=b"a" * 60, purpose="batch")
        await files.create(file=b"a" * 90, purpose="batch")
        with pytest.raises(APIStatusError) as refused:
            await files.create(file=b"a", purpose="batch")
        assert (refused.value.status_code, refused.value.code) == (413, "storage_quota_exceeded")


async def test_a_file_may_expire_and_a_repeated_upload_is_one_file(serve: Any) -> None:
    async with serve() as stage:
        created = [
            await stage.openai.files.create(
                file=b"a",
                purpose="batch",
                expires_after={"anchor": "created_at", "seconds": 3600},
                extra_headers={"Idempotency-Key": "once"},
            )
            for _ in range(2)
        ]
        assert created[0] == created[1]
        assert created[0].expires_at == created[0].created_at + 3600
        with pytest.raises(BadRequestError, match="another file"):
            await stage.openai.files.create(
                file=b"b", purpose="batch", extra_headers={"Idempotency-Key": "once"}
            )


async def test_a_part_of_a_file_is_read(serve: Any) -> None:
    async with serve() as stage:
        created = await stage.openai.files.create(file=b"0123456789", purpose="batch")

        async def part(asked: str) -> httpx.Response:
            path = f"/v1/files/{created.id}/content"
            async with httpx.AsyncClient(base_url=stage.url) as client:
                return await client.get(path, headers={**stage.signer.headers(f"GET {path}"), "range": asked})

        middle = await part("bytes=2-4")
        assert (middle.status_code, middle.content) == (206, b"234")
        assert middle.headers["content-range"] == "bytes 2-4/10"
        assert (await part("bytes=-3")).content == b"789"
        outside = await part("bytes=10-")
        assert (outside.status_code, outside.headers["content-range"]) == (416, "bytes */10")
        assert outside.json()["error"]["code"] == "range_not_satisfiable"


async def test_a_large_file_passes_through_without_being_held_in_memory(serve: Any) -> None:
    process = psutil.Process()
    piece, pieces = b"0123456789abcdef" * 16384, 512
    start, peak = process.memory_info().rss, 0

    async def form() -> AsyncIterator[bytes]:
        nonlocal peak
        yield FORM_HEAD
        for _ in range(pieces):
            yield piece
            peak = max(peak, process.memory_info().rss)
        yield b"\r\n--xyz--\r\n"

    async with serve() as stage, httpx.AsyncClient(base_url=stage.url, timeout=60) as client:
        headers = stage.signer.headers("POST /v1/files") | FORM
        created = (await client.post("/v1/files", content=form(), headers=headers)).json()
        assert created["bytes"] == len(piece) * pieces == 128 * MIB
        assert peak - start < 64 * MIB
        path, digest = f"/v1/files/{created['id']}/content", sha256()
        async with client.stream("GET", path, headers=stage.signer.headers(f"GET {path}")) as answer:
            async for chunk in answer.aiter_bytes():
                digest.update(chunk)
                peak = max(peak, process.memory_info().rss)
        assert digest.hexdigest() == sha256(piece * pieces).hexdigest()
        assert peak - start < 64 * MIB


async def test_a_client_that_leaves_midway_leaves_nothing(serve: Any, database: Database) -> None:
    async with serve() as stage:
        port = int(stage.url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        headers = stage.signer.headers("POST /v1/files") | FORM | {"content-length": str(40 * MIB)}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        writer.write(f"POST /v1/files HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n".encode() + FORM_HEAD)
        writer.write(b"x" * (12 * MIB))
        await writer.drain()
        async with asyncio.timeout(20):
            while not await asyncio.to_thread(stage.objects):  # some of it has been written
                pass
            writer.close()
            due = "select count(*) from unowned_objects where due_at <= now()"
            while not await database.pool.fetchval(due):
                pass
        files = FilesRepository(database)
        limits = Limits(file_bytes=1, account_bytes=1, uploads=1, upload_time=timedelta(hours=1))
        await FilesService(files, ObjectStore(stage.directory.as_uri()), limits).sweep()
        assert stage.objects() == []
        assert (await stage.openai.files.list()).data == []
        assert await database.pool.fetchval("select count(*) from unowned_objects") == 0


async def puts(*parts: PutHeader | bytes) -> AsyncIterator[PutRequest]:
    for part in parts:
        yield PutRequest(chunk=part) if isinstance(part, bytes) else PutRequest(header=part)


async def test_services_keep_files_for_an_account(serve: Any) -> None:
    async with serve() as stage:
        storage = StorageServiceStub(stage.channel)
        header = PutHeader(account_id="acme", filename="out.json", purpose="result", idempotency_key="task1")
        first, again = [(await storage.Put(puts(header, b"ca", b"ts"))).file for _ in range(2)]
        assert (first.bytes, first.sha256) == (4, sha256(b"cats").hexdigest())
        assert again == first
        assert (await storage.Stat(StatRequest(account_id="acme", file_id=first.id))).file == first
        chunks = [got.chunk async for got in storage.Get(GetRequest(account_id="acme", file_id=first.id))]
        assert b"".join(chunks) == b"cats"
        assert (await stage.openai.files.content(first.id)).content == b"cats"
        await storage.Delete(DeleteRequest(account_id="acme", file_id=first.id))
        for call in (
            storage.Delete(DeleteRequest(account_id="acme", file_id=first.id)),
            storage.Stat(StatRequest(account_id="acme", file_id=first.id)),
        ):
            with pytest.raises(RemoteError) as missing, remote_errors():
                await call
            assert missing.value.code == "file_not_found"


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"cats"],
        [PutHeader(account_id="../acme", filename="a", purpose="result")],
        [PutHeader(account_id="acme", filename="a", purpose="nothing")],
        [PutHeader(account_id="acme", filename="a", purpose="result", idempotency_key="k" * 256)],
        [PutHeader(account_id="acme", filename="a", purpose="result")] * 2,
    ],
)
async def test_a_call_that_describes_no_file_is_refused(serve: Any, parts: list[PutHeader | bytes]) -> None:
    async with serve() as stage:
        with pytest.raises(RemoteError) as refused, remote_errors():
            await StorageServiceStub(stage.channel).Put(puts(*parts))
        assert refused.value.code == "invalid_upload"
        assert stage.objects() == []


async def test_a_call_that_is_cancelled_midway_leaves_nothing(serve: Any, database: Database) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[PutRequest]:
        yield PutRequest(header=PutHeader(account_id="acme", filename="a", purpose="result"))
        for _ in range(12):
            yield PutRequest(chunk=b"x" * MIB)
        begun.set()
        await asyncio.Event().wait()

    async with serve() as stage:
        call = StorageServiceStub(stage.channel).Put(endless())
        async with asyncio.timeout(20):
            await begun.wait()
            while not await asyncio.to_thread(stage.objects):
                pass
            call.cancel()
            due = "select count(*) from unowned_objects where due_at <= now()"
            while not await database.pool.fetchval(due):
                pass
            while await asyncio.to_thread(stage.objects):
                pass
    assert await database.pool.fetchval("select count(*) from files") == 0
