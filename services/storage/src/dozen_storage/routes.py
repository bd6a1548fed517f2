"""HTTP routes of the storage service."""

from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from dozen_chassis.http import Admitted
from dozen_storage.domain import DEFAULT_CONTENT_TYPE, MAX_IDEMPOTENCY_KEY, Description, byte_range
from dozen_storage.errors import RangeNotSatisfiable, UploadAborted
from dozen_storage.form import Form
from dozen_storage.schemas import (
    DeletedFile,
    FileList,
    FileObject,
    content_disposition,
    file_list,
    file_object,
    form_description,
)
from dozen_storage.service import FilesService


def router(files: FilesService) -> APIRouter:
    """Serve `/v1/files`."""
    routes = APIRouter()

    @routes.post("/v1/files")
    async def create_file(
        request: Request,
        admission: Admitted,
        idempotency_key: Annotated[str | None, Header(min_length=1, max_length=MAX_IDEMPOTENCY_KEY)] = None,
    ) -> FileObject:
        form = Form(request.headers.get("content-type", ""), _body(request))
        await form.reach_file()

        def describe() -> Description:
            return form_description(form.filename, form.content_type, form.fields)

        if "purpose" in form.fields:
            describe()  # where it is wrong already, nothing need be stored
        return file_object(await files.store(admission.account, form.content(), describe, idempotency_key))

    @routes.get("/v1/files")
    async def list_files(
        admission: Admitted,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
        after: Annotated[str | None, Query(max_length=64)] = None,
        order: Literal["asc", "desc"] = "desc",
        purpose: Annotated[str | None, Query(max_length=64)] = None,
    ) -> FileList:
        found, has_more = await files.page(
            admission.account, purpose=purpose, after=after, ascending=order == "asc", limit=limit
        )
        return file_list(found, has_more)

    @routes.get("/v1/files/{file_id}")
    async def retrieve_file(file_id: str, admission: Admitted) -> FileObject:
        return file_object(await files.stat(admission.account, file_id))

    @routes.get("/v1/files/{file_id}/content")
    async def retrieve_content(
        file_id: str,
        admission: Admitted,
        asked: Annotated[str | None, Header(alias="range", max_length=128)] = None,
    ) -> StreamingResponse:
        file = await files.stat(admission.account, file_id)
        span = byte_range(asked, file.bytes)
        headers = {
            "accept-ranges": "bytes",
            "content-disposition": content_disposition(file.filename),
            "x-content-type-options": "nosniff",
        }
        if span is not None:
            if not span:
                raise RangeNotSatisfiable(headers={"content-range": f"bytes */{file.bytes}"})
            headers["content-range"] = f"bytes {span.start}-{span.stop - 1}/{file.bytes}"
        whole = range(file.bytes)
        headers["content-length"] = str(len(whole if span is None else span))
        return StreamingResponse(
            await files.read(file, whole if span is None else span),
            status_code=200 if span is None else 206,
            headers=headers,
            media_type=DEFAULT_CONTENT_TYPE,
        )

    @routes.delete("/v1/files/{file_id}")
    async def delete_file(file_id: str, admission: Admitted) -> DeletedFile:
        await files.delete(admission.account, file_id)
        return DeletedFile(id=file_id)

    return routes


async def _body(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as error:
        raise UploadAborted() from error
