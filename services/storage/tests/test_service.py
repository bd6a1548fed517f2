"""Use cases of the storage service, on files and objects in memory."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import pytest

from dozen.storage.v1.storage_events_pb2 import FileDeleted, FileStored
from dozen_storage.domain import Description, File, Limits
from dozen_storage.errors import (
    FileNotFound,
    InvalidUpload,
    ObjectStoreUnavailable,
    StorageQuotaExceeded,
    TooManyUploads,
    UploadAborted,
)
from dozen_storage.service import FilesService

LIMITS = Limits(file_bytes=100, account_bytes=10, uploads=1, upload_time=timedelta(minutes=1))
ABOUT = Description("cats.txt", "user_data")


@dataclass
class FakeObjects:
    """Objects in memory."""

    kept: dict[str, bytes] = field(default_factory=dict)
    broken: set[str] = field(default_factory=set)
    """Those that cannot be removed at the moment."""

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        self.kept[key] = b""
        async for chunk in chunks:
            self.kept[key] += chunk

    async def read(self, key: str, span: range) -> AsyncIterator[bytes]:
        for position in span:
            yield self.kept[key][position : position + 1]

    async def delete(self, key: str) -> None:
        if key in self.broken:
            raise ObjectStoreUnavailable()
        self.kept.pop(key, None)


@pytest.fixture
def objects() -> FakeObjects:
    return FakeObjects()


@pytest.fixture
def service(fake_files: Any, objects: FakeObjects) -> FilesService:
    return FilesService(fake_files, objects, LIMITS)


async def stream(*chunks: bytes, failure: Exception | None = None) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if failure:
        raise failure


async def store(service: FilesService, content: bytes, key: str | None = None) -> File:
    return await service.store("acme", stream(content), lambda: ABOUT, key)


async def test_a_file_is_stored_with_its_bytes_and_announced(
    service: FilesService, objects: FakeObjects, fake_files: Any
) -> None:
    file = await service.store("acme", stream(b"ca", b"ts"), lambda: ABOUT)
    assert (file.filename, file.purpose, file.bytes) == ("cats.txt", "user_data", 4)
    assert file.sha256 == sha256(b"cats").hexdigest()
    assert objects.kept == {f"acme/{file.id}": b"cats"}
    assert await service.stat("acme", file.id) == file
    (event,) = fake_files.events
    assert isinstance(event, FileStored)
    assert (event.file.id, event.file.account_id, event.file.bytes) == (file.id, "acme", 4)
    assert not event.file.HasField("expires_at")
    assert fake_files.used == {"acme": 4}
    assert not fake_files.unowned


async def test_a_file_is_read_whole_and_in_part(service: FilesService) -> None:
    file = await store(service, b"mouse")
    assert b"".join([chunk async for chunk in await service.read(file, range(5))]) == b"mouse"
    assert b"".join([chunk async for chunk in await service.read(file, range(1, 3))]) == b"ou"


async def test_the_files_of_others_are_not_to_be_seen(service: FilesService) -> None:
    file = await store(service, b"cats")
    with pytest.raises(FileNotFound):
        await service.stat("other", file.id)
    with pytest.raises(FileNotFound):
        await service.delete("other", file.id)


@pytest.mark.parametrize("failure", [UploadAborted(), InvalidUpload()])
async def test_an_upload_that_breaks_leaves_nothing(
    service: FilesService, objects: FakeObjects, fake_files: Any, failure: Exception
) -> None:
    with pytest.raises(type(failure)):
        await service.store("acme", stream(b"ca", failure=failure), lambda: ABOUT)
    await service.sweep()
    assert not objects.kept
    assert not fake_files.kept
    assert not fake_files.events
    assert not fake_files.unowned


async def test_a_description_that_turns_out_wrong_leaves_nothing(
    service: FilesService, objects: FakeObjects, fake_files: Any
) -> None:
    def describe() -> Description:
        raise InvalidUpload(param="purpose")

    with pytest.raises(InvalidUpload):
        await service.store("acme", stream(b"cats"), describe)
    await service.sweep()
    assert not objects.kept
    assert not fake_files.kept


async def test_an_object_given_up_meanwhile_is_not_made_a_file(
    service: FilesService, objects: FakeObjects, fake_files: Any
) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"cats"
        (key,) = objects.kept
        await fake_files.disown(key, timedelta())

    with pytest.raises(UploadAborted):
        await service.store("acme", slow(), lambda: ABOUT)
    assert not fake_files.kept
    assert not fake_files.used


async def test_an_account_has_room_for_so_much(
    service: FilesService, objects: FakeObjects, fake_files: Any
) -> None:
    first = await store(service, b"cats")
    with pytest.raises(StorageQuotaExceeded):
        await store(service, b"elephant")
    await service.sweep()
    assert list(objects.kept) == [first.key]
    await service.delete("acme", first.id)
    await store(service, b"elephant")
    assert fake_files.used == {"acme": 8}


async def test_room_that_is_taken_meanwhile_is_noticed(service: FilesService, fake_files: Any) -> None:
    async def slow() -> AsyncIterator[bytes]:
        yield b"cats"
        assert await fake_files.take_room("acme", 7, 10)

    with pytest.raises(StorageQuotaExceeded):
        await service.store("acme", slow(), lambda: ABOUT)
    assert not fake_files.kept


async def test_uploads_beyond_the_limit_are_refused(service: FilesService) -> None:
    async def meanwhile() -> AsyncIterator[bytes]:
        with pytest.raises(TooManyUploads):
            await store(service, b"mice")
        yield b"cats"

    await service.store("acme", meanwhile(), lambda: ABOUT)
    await store(service, b"mice")


async def test_a_repeated_key_gives_the_first_file(
    service: FilesService, objects: FakeObjects, fake_files: Any
) -> None:
    first = await store(service, b"cats", "key")
    assert await store(service, b"cats", "key") == first
    with pytest.raises(InvalidUpload, match="another file"):
        await store(service, b"mice", "key")
    await service.sweep()
    assert list(objects.kept) == [first.key]
    assert len(fake_files.events) == 1
    assert fake_files.used == {"acme": 4}


async def test_pages_say_whether_there_are_more(service: FilesService) -> None:
    files = [await store(service, b"a") for _ in range(3)]
    ids = sorted((file.id for file in files), reverse=True)
    page, more = await service.page("acme", purpose=None, after=None, ascending=False, limit=2)
    assert ([file.id for file in page], more) == (ids[:2], True)
    page, more = await service.page("acme", purpose=None, after=page[-1].id, ascending=False, limit=10_000)
    assert ([file.id for file in page], more) == (ids[2:], False)


async def test_a_deleted_file_is_announced_and_its_bytes_go(
    service: FilesService, objects: FakeObjects, fake_files: Any
) -> None:
    file = await store(service, b"cats")
    await service.delete("acme", file.id)
    assert isinstance(fake_files.events[-1], FileDeleted)
    assert fake_files.used == {"acme": 0}
    with pytest.raises(FileNotFound):
        await service.delete("acme", file.id)
    await service.sweep()
    assert not objects.kept


async def test_an_expired_file_is_deleted_like_any_other(
    service: FilesService, objects: FakeObjects, fake_files: Any
) -> None:
    about = replace(ABOUT, expires_after=timedelta(hours=1))
    file = await service.store("acme", stream(b"cats"), lambda: about)
    assert file.expires_at == file.created_at + timedelta(hours=1)
    await service.sweep()
    assert objects.kept
    fake_files.kept[file.id] = replace(file, expires_at=datetime.now(UTC))
    await service.sweep()
    assert not objects.kept
    assert isinstance(fake_files.events[-1], FileDeleted)


async def test_an_object_that_cannot_be_removed_does_not_hold_up_the_others(
    service: FilesService, objects: FakeObjects
) -> None:
    first, second = await store(service, b"cats"), await store(service, b"mice")
    await service.delete("acme", first.id)
    await service.delete("acme", second.id)
    objects.broken.add(first.key)
    with pytest.raises(ObjectStoreUnavailable):
        await service.sweep()
    await service.sweep()
    assert list(objects.kept) == [first.key]
