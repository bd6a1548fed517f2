"""Bodies of the Files API, as OpenAI has them."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Literal
from urllib.parse import quote

from pydantic import BaseModel

from dozen_storage.domain import UPLOAD_PURPOSES, Description, File
from dozen_storage.errors import InvalidUpload
from dozen_storage.upload import description


class FileObject(BaseModel):
    """A file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class FileList(BaseModel):
    """A page of files."""

    object: Literal["list"] = "list"
    data: Sequence[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DeletedFile(BaseModel):
    """The answer of `DELETE /v1/files/{file_id}`."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


def file_object(file: File) -> FileObject:
    """Write a file."""
    return FileObject(
        id=file.id,
        bytes=file.bytes,
        created_at=int(file.created_at.timestamp()),
        expires_at=int(file.expires_at.timestamp()) if file.expires_at else None,
        filename=file.filename,
        purpose=file.purpose,
    )


def file_list(files: Sequence[File], has_more: bool) -> FileList:
    """Write a page of files."""
    data = [file_object(file) for file in files]
    return FileList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        has_more=has_more,
    )


def form_description(filename: str, content_type: str, fields: Mapping[str, str]) -> Description:
    """Read what the form of `POST /v1/files` says of its file."""
    expires_after = None
    if "expires_after[seconds]" in fields or "expires_after[anchor]" in fields:
        seconds = fields.get("expires_after[seconds]", "")
        if fields.get("expires_after[anchor]") != "created_at" or not seconds.isdecimal():
            raise InvalidUpload(
                "`expires_after` needs the anchor `created_at` and a number of seconds.",
                param="expires_after",
            )
        expires_after = timedelta(seconds=int(seconds[:9]))
    return description(
        filename,
        fields.get("purpose", ""),
        content_type,
        purposes=UPLOAD_PURPOSES,
        expires_after=expires_after,
    )


def content_disposition(filename: str) -> str:
    """Write a header that makes browsers save a file under its name (RFC 6266), and never show it."""
    plain = "".join(letter if letter.isascii() and letter not in '"\\%' else "_" for letter in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
