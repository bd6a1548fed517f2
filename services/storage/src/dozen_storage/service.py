"""The use cases of the storage service."""

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Protocol, Self

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import Counter

from dozen.storage.v1.storage_events_pb2 import FileDeleted, FileStored
from dozen.storage.v1.storage_pb2 import File as FileMessage
from dozen_chassis.errors import ServiceError
from dozen_storage.domain import MAX_PAGE, Description, File, Limits, new_file_id, object_key
from dozen_storage.errors import (
    FileNotFound,
    InvalidUpload,
    ObjectStoreUnavailable,
    StorageQuotaExceeded,
    TooManyUploads,
    UploadAborted,
)
from dozen_storage.upload import Upload

OPERATIONS = Counter("dozen_storage_operations", "Operations on files.", ["operation", "outcome"])
STORED = Counter("dozen_storage_stored_bytes", "Bytes of files that were stored.")
READ = Counter("dozen_storage_read_bytes", "Bytes of files that were read.")

_BATCH = 100
_REMOVAL_RETRY = timedelta(minutes=5)


class Objects(Protocol):
    """Where the bytes are."""

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Store an object as it arrives."""
        ...

    def read(self, key: str, span: range) -> AsyncIterator[bytes]:
        """Give a span of an object's bytes."""
        ...

    async def delete(self, key: str) -> None:
        """Remove an object; do nothing where there is none."""
        ...


class Files(Protocol):
    """Files, what they take, and objects that no file owns."""

    def transaction(self) -> AbstractAsyncContextManager[Self]:
        """Give the same in one transaction."""
        ...

    async def emit(self, event: Message) -> None:
        """Publish an event with this transaction."""
        ...

    async def add(self, file: File, idempotency_key: str | None) -> bool:
        """Add a file; False where the account has used the idempotency key before."""
        ...

    async def find(self, account_id: str, file_id: str) -> File | None:
        """Find a file of an account that has not expired."""
        ...

    async def find_repeated(self, account_id: str, idempotency_key: str) -> File | None:
        """Find the file that was stored under an idempotency key."""
        ...

    async def page(
        self, account_id: str, *, purpose: str | None, after: str | None, ascending: bool, limit: int
    ) -> list[File]:
        """Give files of an account by their ids, from behind `after`."""
        ...

    async def remove(self, account_id: str, file_id: str) -> File | None:
        """Remove a file of an account; None where there is none."""
        ...

    async def expired(self, limit: int) -> list[File]:
        """Give files whose time is over."""
        ...

    async def used_bytes(self, account_id: str) -> int:
        """Give what the files of an account take."""
        ...

    async def take_room(self, account_id: str, size: int, most: int) -> bool:
        """Count the bytes of a new file; False where the account would have more than `most`."""
        ...

    async def give_room(self, account_id: str, size: int) -> None:
        """Count the bytes of a removed file."""
        ...

    async def disown(self, key: str, keep: timedelta) -> None:
        """Have an object removed after some time, unless a file comes to own it."""
        ...

    async def own(self, key: str) -> bool:
        """Give an object to a file; False where it was given up."""
        ...

    async def lock_unowned(self) -> str | None:
        """Lock an object that is due to be removed."""
        ...

    async def forget_unowned(self, key: str) -> None:
        """Forget an object that is gone."""
        ...


class FilesService:
    """Stores, reads and removes files."""

    def __init__(self, files: Files, objects: Objects, limits: Limits) -> None:
        self._files = files
        self._objects = objects
        self._limits = limits
        self._uploads = 0

    async def store(
        self,
        account_id: str,
        content: AsyncIterator[bytes],
        describe: Callable[[], Description],
        idempotency_key: str | None = None,
    ) -> File:
        """Store a file: first its bytes, then, in one transaction, what is known of it and the event.

        `describe` is called when the content has ended, because a form may name the purpose last. A
        repeated idempotency key gives the file that it was first used for.
        """
        with _counted("store"), self._upload_slot():
            now = datetime.now(UTC)
            file_id = new_file_id(now, secrets.token_bytes(10))
            key = object_key(account_id, file_id)
            room = self._limits.account_bytes - await self._files.used_bytes(account_id)
            upload = Upload(content, self._limits, room)
            stored = None
            await self._files.disown(key, self._limits.upload_time * 2)
            try:
                await self._objects.put(key, upload.chunks())
                about = describe()
                file = File(
                    id=file_id,
                    account_id=account_id,
                    filename=about.filename,
                    purpose=about.purpose,
                    content_type=about.content_type,
                    bytes=upload.size,
                    sha256=upload.sha256.hexdigest(),
                    created_at=now,
                    expires_at=about.expires_at(now),
                )
                stored = await self._keep(file, idempotency_key)
            finally:
                if stored is None or stored.id != file_id:
                    await self._files.disown(key, timedelta())
            STORED.inc(upload.size)
            return stored

    async def stat(self, account_id: str, file_id: str) -> File:
        """Give what is known of a file."""
        with _counted("stat"):
            file = await self._files.find(account_id, file_id)
            if file is None:
                raise FileNotFound(f"No such file: {file_id[:64]}.", param="file_id")
            return file

    async def read(self, file: File, span: range) -> AsyncIterator[bytes]:
        """Give a span of a file's bytes; the first of them are read before this returns."""
        with _counted("read"):
            chunks = self._objects.read(file.key, span)
            first = await anext(chunks, b"")
        return _read(first, chunks)

    async def page(
        self, account_id: str, *, purpose: str | None, after: str | None, ascending: bool, limit: int
    ) -> tuple[list[File], bool]:
        """Give the files of an account behind `after`, at most 100, and whether there are more."""
        with _counted("list"):
            limit = min(limit, MAX_PAGE)
            found = await self._files.page(
                account_id, purpose=purpose, after=after, ascending=ascending, limit=limit + 1
            )
            return found[:limit], len(found) > limit

    async def delete(self, account_id: str, file_id: str) -> None:
        """Delete a file; its bytes go with the next sweep."""
        with _counted("delete"):
            if not await self._remove(account_id, file_id):
                raise FileNotFound(f"No such file: {file_id[:64]}.", param="file_id")

    async def sweep(self) -> None:
        """Delete expired files, and remove the objects that no file owns any more."""
        while expired := await self._files.expired(_BATCH):
            for file in expired:
                await self._remove(file.account_id, file.id)
        while await self._remove_unowned():
            pass

    async def _keep(self, file: File, idempotency_key: str | None) -> File:
        async with self._files.transaction() as tx:
            if not await tx.add(file, idempotency_key):
                assert idempotency_key is not None, "only a repeated key prevents that a file is added"
                first = await tx.find_repeated(file.account_id, idempotency_key)
                if first is None or not file.repeats(first):
                    raise InvalidUpload("This idempotency key was used for another file.")
                return first
            if not await tx.own(file.key):
                raise UploadAborted()
            if not await tx.take_room(file.account_id, file.bytes, self._limits.account_bytes):
                raise StorageQuotaExceeded()
            await tx.emit(FileStored(file=file_message(file)))
        return file

    async def _remove(self, account_id: str, file_id: str) -> bool:
        async with self._files.transaction() as tx:
            file = await tx.remove(account_id, file_id)
            if file is None:
                return False
            await tx.give_room(account_id, file.bytes)
            await tx.disown(file.key, timedelta())
            await tx.emit(FileDeleted(file=file_message(file)))
        return True

    async def _remove_unowned(self) -> bool:
        key = None
        try:
            async with self._files.transaction() as tx:
                key = await tx.lock_unowned()
                if key is None:
                    return False
                await self._objects.delete(key)
                await tx.forget_unowned(key)
        except ObjectStoreUnavailable:
            if key is not None:  # the next sweep begins with another one
                await self._files.disown(key, _REMOVAL_RETRY)
            raise
        return True

    @contextmanager
    def _upload_slot(self) -> Iterator[None]:
        if self._uploads >= self._limits.uploads:
            raise TooManyUploads(headers={"retry-after": "1"})
        self._uploads += 1
        try:
            yield
        finally:
            self._uploads -= 1


async def _read(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    READ.inc(len(first))
    yield first
    async for chunk in rest:
        READ.inc(len(chunk))
        yield chunk


@contextmanager
def _counted(operation: str) -> Iterator[None]:
    outcome = "failed"
    try:
        yield
        outcome = "ok"
    except ServiceError as error:
        outcome = error.code or outcome
        raise
    finally:
        OPERATIONS.labels(operation, outcome).inc()


def file_message(file: File) -> FileMessage:
    """Give a file as other services hear of it."""
    return FileMessage(
        id=file.id,
        account_id=file.account_id,
        filename=file.filename,
        purpose=file.purpose,
        content_type=file.content_type,
        bytes=file.bytes,
        created_at=_timestamp(file.created_at),
        sha256=file.sha256,
        expires_at=_timestamp(file.expires_at) if file.expires_at else None,
    )


def _timestamp(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
