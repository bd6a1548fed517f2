"""gRPC servicer of the storage service."""

from collections.abc import AsyncIterator

import grpc.aio

from dozen.storage.v1.storage_service_pb2 import (
    DeleteRequest,
    DeleteResponse,
    GetRequest,
    GetResponse,
    PutHeader,
    PutRequest,
    PutResponse,
    StatRequest,
    StatResponse,
)
from dozen.storage.v1.storage_service_pb2_grpc import StorageServiceServicer
from dozen_storage.domain import MAX_IDEMPOTENCY_KEY, OUTPUT_PURPOSES, UPLOAD_PURPOSES, is_account
from dozen_storage.errors import InvalidUpload
from dozen_storage.service import FilesService, file_message
from dozen_storage.upload import description


class StorageServicer(StorageServiceServicer):
    """Serves `dozen.storage.v1.StorageService`."""

    def __init__(self, files: FilesService) -> None:
        self._files = files

    async def Put(
        self, request_iterator: AsyncIterator[PutRequest], context: grpc.aio.ServicerContext
    ) -> PutResponse:
        header = await _header(request_iterator)
        about = description(
            header.filename,
            header.purpose,
            header.content_type,
            purposes=(*UPLOAD_PURPOSES, *OUTPUT_PURPOSES),
        )
        file = await self._files.store(
            header.account_id, _chunks(request_iterator), lambda: about, header.idempotency_key or None
        )
        return PutResponse(file=file_message(file))

    async def Get(self, request: GetRequest, context: grpc.aio.ServicerContext) -> AsyncIterator[GetResponse]:
        file = await self._files.stat(request.account_id, request.file_id)
        async for chunk in await self._files.read(file, range(file.bytes)):
            yield GetResponse(chunk=chunk)

    async def Stat(self, request: StatRequest, context: grpc.aio.ServicerContext) -> StatResponse:
        return StatResponse(file=file_message(await self._files.stat(request.account_id, request.file_id)))

    async def Delete(self, request: DeleteRequest, context: grpc.aio.ServicerContext) -> DeleteResponse:
        await self._files.delete(request.account_id, request.file_id)
        return DeleteResponse()


async def _header(requests: AsyncIterator[PutRequest]) -> PutHeader:
    first = await anext(requests, None)
    if first is None or first.WhichOneof("part") != "header":
        raise InvalidUpload("The first message must describe the file.")
    if not is_account(first.header.account_id):
        raise InvalidUpload("The account's id is not valid.", param="account_id")
    if len(first.header.idempotency_key) > MAX_IDEMPOTENCY_KEY:
        raise InvalidUpload("The idempotency key is too long.", param="idempotency_key")
    return first.header


async def _chunks(requests: AsyncIterator[PutRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise InvalidUpload("Only the first message may describe the file.")
        yield request.chunk
