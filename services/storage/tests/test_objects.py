"""The object store, on a local directory."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from dozen_chassis.errors import InternalError
from dozen_storage.errors import ObjectStoreUnavailable, UploadAborted
from dozen_storage.objects import ObjectStore

MIB = 1024 * 1024


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "the files"


@pytest.fixture
def objects(directory: Path) -> ObjectStore:
    return ObjectStore(directory.as_uri())


async def stream(size: int, failure: Exception | None = None) -> AsyncIterator[bytes]:
    for start in range(0, size, 65536):
        yield b"x" * min(65536, size - start)
    if failure:
        raise failure


def stored(directory: Path) -> list[str]:
    return [path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()]


@pytest.mark.parametrize("size", [0, 1, 5 * MIB, 12 * MIB + 1])
async def test_an_object_is_read_as_it_was_put(objects: ObjectStore, directory: Path, size: int) -> None:
    await objects.put("acme/1", stream(size))
    assert stored(directory) == ["acme/1"]
    chunks = [chunk async for chunk in objects.read("acme/1", range(size))]
    assert b"".join(chunks) == b"x" * size
    assert all(len(chunk) <= MIB for chunk in chunks)


async def test_a_span_of_an_object_is_read(objects: ObjectStore, directory: Path) -> None:
    await objects.put("acme/1", stream(MIB))
    (directory / "acme/1").write_bytes(bytes(range(256)) * 2 * 4096)
    spanned = [chunk async for chunk in objects.read("acme/1", range(3, MIB + 9))]
    assert b"".join(spanned) == (bytes(range(256)) * 2 * 4096)[3 : MIB + 9]


async def test_nothing_is_left_of_an_upload_that_breaks(objects: ObjectStore, directory: Path) -> None:
    with pytest.raises(UploadAborted):
        await objects.put("acme/1", stream(12 * MIB, UploadAborted()))
    assert stored(directory) == []


async def test_nothing_is_left_of_an_upload_that_is_cancelled(objects: ObjectStore, directory: Path) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        async for chunk in stream(12 * MIB):
            yield chunk
        begun.set()
        await asyncio.Event().wait()

    uploading = asyncio.create_task(objects.put("acme/1", endless()))
    async with asyncio.timeout(10):
        await begun.wait()
        uploading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await uploading
    assert stored(directory) == []


async def test_removing_takes_what_a_crashed_process_left(objects: ObjectStore, directory: Path) -> None:
    await objects.put("acme/1", stream(1))
    await objects.put("acme/11", stream(1))
    (directory / "acme/1#2").write_bytes(b"half")
    await objects.delete("acme/1")
    await objects.delete("acme/1")
    assert stored(directory) == ["acme/11"]


async def test_content_that_is_lost_is_our_fault(objects: ObjectStore) -> None:
    with pytest.raises(InternalError, match="cannot be found"):
        await anext(objects.read("acme/1", range(1)))


async def test_a_store_that_does_not_answer_is_unavailable(objects: ObjectStore) -> None:
    await objects.ping()
    nowhere = ObjectStore("http://127.0.0.1:9/")  # the port that discards
    with pytest.raises(ObjectStoreUnavailable):
        await nowhere.ping()


def test_stores_of_a_cluster_are_opened_by_url() -> None:
    ObjectStore("s3://bucket/files")
