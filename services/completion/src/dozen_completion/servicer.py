"""gRPC servicer of the completion service."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc.aio

from dozen.completion.v1.completion_service_pb2 import CompleteRequest, CompleteResponse
from dozen.completion.v1.completion_service_pb2_grpc import CompletionServiceServicer
from dozen_chassis import admission
from dozen_completion.service import OPERATION, CompletionService, Entry
from dozen_inference.settlement import Settlements


class CompletionServicer(CompletionServiceServicer):
    """Serves `dozen.completion.v1.CompletionService`."""

    def __init__(
        self, completion: CompletionService, settlements: Settlements[Entry], admission_key: bytes
    ) -> None:
        self._completion = completion
        self._settlements = settlements
        self._admission_key = admission_key

    async def Complete(
        self, request: CompleteRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[CompleteResponse]:
        """Give the response body as it is produced."""
        admitted = admission.verify(request.admission.headers, OPERATION, self._admission_key, time.time())
        async with (
            self._settlements.follow(admitted),
            aclosing(self._completion.complete(admitted, request.body).chunks) as chunks,
        ):
            async for chunk in chunks:
                yield CompleteResponse(chunk=chunk)
