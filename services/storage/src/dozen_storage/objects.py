"""Bytes in an object store: S3, GCS, or a local directory."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url

from dozen_chassis.errors import InternalError
from dozen_storage.errors import ObjectStoreUnavailable

# S3 takes no smaller parts; with those that are being sent, an upload holds three times as much.
_PART_BYTES = 5 * 1024 * 1024
_PARTS_AT_ONCE = 2
# Content is read range by range, because one long answer would have to be taken within the store's timeout.
_READ_BYTES = 1024 * 1024
_RETRIES = 3
_RETRY_TIME = timedelta(seconds=20)


class ObjectStore:
    """Objects by key."""

    def __init__(self, url: str) -> None:
        if url.startswith("file:"):
            self._store = from_url(url, mkdir=True)
        else:
            self._store = from_url(url, retry_config={"max_retries": _RETRIES, "retry_timeout": _RETRY_TIME})

    async def ping(self) -> None:
        """Raise unless the store answers."""
        with _translated(), suppress(FileNotFoundError):
            await obstore.head_async(self._store, "readiness")

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Store an object as it arrives; nothing is to be seen of it before it is complete.

        What the chunks raise, or a cancellation, aborts the upload.
        """
        writer = obstore.open_writer_async(
            self._store, key, buffer_size=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
        )
        with _translated():
            async with writer:
                async for chunk in chunks:
                    await writer.write(chunk)

    async def read(self, key: str, span: range) -> AsyncIterator[bytes]:
        """Give a span of an object's bytes."""
        for start in range(span.start, span.stop, _READ_BYTES):
            with _translated():
                end = min(start + _READ_BYTES, span.stop)
                chunk = bytes(await obstore.get_range_async(self._store, key, start=start, end=end))
            yield chunk

    async def delete(self, key: str) -> None:
        """Remove an object, and what a crashed process left of it; do nothing where there is none."""
        with _translated(), suppress(FileNotFoundError):
            await obstore.delete_async(self._store, key)
        if isinstance(self._store, LocalStore) and self._store.prefix:
            await asyncio.to_thread(_remove_staged, Path(self._store.prefix) / key)


def _remove_staged(path: Path) -> None:
    for staged in path.parent.glob(f"{path.name}#*"):  # so the local store names what is not complete
        staged.unlink(missing_ok=True)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InternalError("The content of this file cannot be found.") from error
    except (BaseError, OSError) as error:
        raise ObjectStoreUnavailable() from error
