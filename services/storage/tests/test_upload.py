"""Descriptions and content of uploads."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from hashlib import sha256

import pytest

from dozen_chassis.errors import BodyTooLarge
from dozen_storage.domain import Limits
from dozen_storage.errors import InvalidUpload, StorageQuotaExceeded, UploadAborted
from dozen_storage.upload import Upload, description

LIMITS = Limits(file_bytes=10, account_bytes=100, uploads=1, upload_time=timedelta(minutes=1))


async def stream(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def test_content_is_counted_and_hashed_on_its_way() -> None:
    upload = Upload(stream(b"cats", b"", b"mice"), LIMITS, room=8)
    assert b"".join([chunk async for chunk in upload.chunks()]) == b"catsmice"
    assert upload.size == 8
    assert upload.sha256.hexdigest() == sha256(b"catsmice").hexdigest()


async def test_content_beyond_a_limit_is_not_read_on() -> None:
    for room, error in [(100, BodyTooLarge), (9, StorageQuotaExceeded)]:
        content = stream(b"12345678", b"9ab" if room > 9 else b"9a", b"never read")
        with pytest.raises(error):
            _ = [chunk async for chunk in Upload(content, LIMITS, room).chunks()]
        assert await anext(content) == b"never read"


async def test_content_that_takes_too_long_is_given_up() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.Event().wait()

    hasty = Limits(file_bytes=10, account_bytes=100, uploads=1, upload_time=timedelta(milliseconds=20))
    with pytest.raises(UploadAborted):
        _ = [chunk async for chunk in Upload(endless(), hasty, room=10).chunks()]


@pytest.mark.parametrize(
    ("filename", "purpose", "expires_after", "param"),
    [
        ("", "batch", None, "file"),
        ("a.txt", "", None, "purpose"),
        ("a.txt", "result", None, "purpose"),
        ("a.txt", "batch", timedelta(seconds=3599), "expires_after"),
        ("a.txt", "batch", timedelta(days=31), "expires_after"),
    ],
)
def test_a_description_that_is_not_valid_is_refused_by_its_field(
    filename: str, purpose: str, expires_after: timedelta | None, param: str
) -> None:
    with pytest.raises(InvalidUpload) as refused:
        description(filename, purpose, "text/plain", purposes=["batch"], expires_after=expires_after)
    assert refused.value.param == param
