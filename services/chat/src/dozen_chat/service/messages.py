"""Messages: chat completions in the form of Anthropic's Messages API."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from dozen_chassis.admission import Admission
from dozen_chassis.errors import ServiceError
from dozen_chat.domain.message_blocks import MessageRequest
from dozen_chat.domain.message_errors import error_fields, streamed_error_fields
from dozen_chat.domain.message_events import MessageEvents, event
from dozen_chat.domain.message_object import ChatError, message_object, read_completion
from dozen_chat.domain.message_request import chat_body, read_message_request
from dozen_chat.service.validity import validly
from dozen_inference.formats.events import EventData
from dozen_inference.generation import Answer
from dozen_inference.upstream import UpstreamFailed

MESSAGES_PATH = "/v1/messages"

_END = b"[DONE]"
_NOTHING_YET = b"null"
"""llama.cpp's word."""


class Completions(Protocol):
    """Answers chat completions."""

    def complete(self, admitted: Admission, body: bytes, cache: str = "") -> Answer:
        """Answer a request body of `POST /v1/chat/completions`; `cache` is what the client wants of it."""
        ...


class MessagesService:
    """Answers requests of the Messages API by chat completions."""

    def __init__(self, chat: Completions) -> None:
        self._chat = chat

    def create(self, admitted: Admission, body: bytes, cache: str = "") -> Answer:
        """Answer a request body of `POST /v1/messages`."""
        with validly():
            request = read_message_request(body)
            asked = chat_body(request)
        answer = self._chat.complete(admitted, asked, cache)
        answer.headers["request-id"] = admitted.request_id
        if answer.stream:
            chunks = _events(request, answer.chunks, admitted.request_id)
        else:
            chunks = _whole(request, answer.chunks)
        return Answer(answer.stream, chunks, answer.headers)


async def _whole(request: MessageRequest, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(chunks):
        whole = b"".join([chunk async for chunk in chunks])
    try:
        yield message_object(
            whole, stop_sequences=request.stop_sequences, tells_thoughts=request.tells_thoughts
        )
    except ValueError as error:
        raise UpstreamFailed() from error


async def _events(
    request: MessageRequest, chunks: AsyncGenerator[bytes, None], request_id: str
) -> AsyncGenerator[bytes, None]:
    writer = MessageEvents(stop_sequences=request.stop_sequences, tells_thoughts=request.tells_thoughts)
    events = EventData()
    async with aclosing(chunks):
        async for chunk in chunks:
            said = b""
            for data in events.feed(chunk):
                try:
                    said += _translated(writer, data)
                except _Failed as failed:
                    yield said + event("error", **streamed_error_fields(failed.error, request_id))
                    return
                except ValueError as error:
                    failure = UpstreamFailed()
                    if not writer.has_begun:
                        raise failure from error
                    yield said + _failed(failure, request_id)
                    return
            if said:
                yield said
    if not writer.has_ended:
        yield _failed(UpstreamFailed(), request_id)


class _Failed(Exception):
    """The chat completion ended in an error."""

    def __init__(self, error: ChatError) -> None:
        super().__init__(error.message)
        self.error = error


def _translated(writer: MessageEvents, data: bytes) -> bytes:
    if data == _END:
        return writer.end()
    if data == _NOTHING_YET:
        return b""
    completion = read_completion(data)
    if completion.error is not None:
        raise _Failed(completion.error)
    return writer.take(completion)


def _failed(error: ServiceError, request_id: str) -> bytes:
    status, kind = error.http
    return event("error", **error_fields(error.message, kind, status, request_id))
