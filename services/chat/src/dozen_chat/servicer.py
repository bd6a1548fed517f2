"""gRPC servicer of the chat service."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import grpc.aio

from dozen.chat.v1.chat_service_pb2 import ChatRequest, ChatResponse
from dozen.chat.v1.chat_service_pb2_grpc import ChatServiceServicer
from dozen_chassis import admission
from dozen_chat.service.completions import OPERATION, ChatService
from dozen_chat.service.log import Entry
from dozen_inference.settlement import Settlements


class ChatServicer(ChatServiceServicer):
    """Serves `dozen.chat.v1.ChatService`."""

    def __init__(self, chat: ChatService, settlements: Settlements[Entry], admission_key: bytes) -> None:
        self._chat = chat
        self._settlements = settlements
        self._admission_key = admission_key

    async def Chat(
        self, request: ChatRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[ChatResponse]:
        """Give the response body as it is produced."""
        admitted = admission.verify(request.admission.headers, OPERATION, self._admission_key, time.time())
        async with (
            self._settlements.follow(admitted),
            aclosing(self._chat.complete(admitted, request.body).chunks) as chunks,
        ):
            async for chunk in chunks:
                yield ChatResponse(chunk=chunk)
