"""What is uploaded: its description, checked, and its content on the way to the object store."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Collection
from datetime import timedelta

from dozen_chassis.errors import BodyTooLarge
from dozen_storage.domain import (
    LONGEST_LIFE,
    MAX_FILENAME,
    SHORTEST_LIFE,
    Description,
    Limits,
    plain_content_type,
    plain_filename,
)
from dozen_storage.errors import InvalidUpload, StorageQuotaExceeded, UploadAborted


def description(
    filename: str,
    purpose: str,
    content_type: str,
    *,
    purposes: Collection[str],
    expires_after: timedelta | None = None,
) -> Description:
    """Check what somebody says of a file."""
    plain = plain_filename(filename)
    if plain is None:
        raise InvalidUpload(f"The file needs a printable name of 1 to {MAX_FILENAME} letters.", param="file")
    if purpose not in purposes:
        raise InvalidUpload(f"The purpose must be one of {', '.join(purposes)}.", param="purpose")
    if expires_after is not None and not SHORTEST_LIFE <= expires_after <= LONGEST_LIFE:
        raise InvalidUpload("A file may expire after 3600 to 2592000 seconds.", param="expires_after")
    return Description(plain, purpose, plain_content_type(content_type), expires_after)


class Upload:
    """Content as it arrives: counted, hashed, and bounded in size and time."""

    def __init__(self, content: AsyncIterator[bytes], limits: Limits, room: int) -> None:
        self.size = 0
        self.sha256 = hashlib.sha256()
        self._content = content
        self._limits = limits
        self._room = room

    async def chunks(self) -> AsyncIterator[bytes]:
        """Give the content on; raise where it becomes too large, or takes too long."""
        deadline = asyncio.get_running_loop().time() + self._limits.upload_time.total_seconds()
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    chunk = await anext(self._content, None)
            except TimeoutError as error:
                raise UploadAborted() from error
            if chunk is None:
                return
            self.size += len(chunk)
            if self.size > self._limits.file_bytes:
                raise BodyTooLarge(f"A file may have {self._limits.file_bytes} bytes.", param="file")
            if self.size > self._room:
                raise StorageQuotaExceeded()
            self.sha256.update(chunk)
            yield chunk
