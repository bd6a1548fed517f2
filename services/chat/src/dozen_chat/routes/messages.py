"""HTTP routes of Anthropic's Messages API."""

from collections.abc import Awaitable
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dozen_chassis.admission import Admission
from dozen_chassis.errors import ServiceError
from dozen_chat.domain.message_errors import error_fields
from dozen_chat.service.messages import MESSAGES_PATH, MessagesService
from dozen_inference import cache
from dozen_inference.endpoint import CompletionEndpoint
from dozen_inference.generation import Answer
from dozen_inference.settlement import Settlements


def hot_paths(messages: MessagesService, settlements: Settlements[Any]) -> dict[str, ASGIApp]:
    """Serve `POST /v1/messages`."""

    def create(admission: Admission, body: bytes, headers: dict[bytes, bytes]) -> Answer:
        return messages.create(admission, body, cache.header(headers))

    return {MESSAGES_PATH: AnthropicErrors(CompletionEndpoint(create, settlements))}


class AnthropicErrors:
    """ASGI app around another one, whose errors it tells in Anthropic's form."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        has_begun = False

        def noting(message: Message) -> Awaitable[None]:
            nonlocal has_begun
            has_begun = True
            return send(message)

        try:
            await self._app(scope, receive, noting)
        except ServiceError as error:
            if has_begun:
                raise
            await _send_error(error, scope["request_id"], send)


async def _send_error(error: ServiceError, request_id: str, send: Send) -> None:
    status, kind = error.http
    fields = error_fields(error.message, kind, status, request_id)
    body = msgspec.json.encode({"type": "error", **fields})
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"request-id", request_id.encode()),
        *((name.encode(), value.encode()) for name, value in error.headers.items()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
