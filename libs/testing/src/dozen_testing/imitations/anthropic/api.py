"""The imitation, as an ASGI app."""

import itertools
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

from dozen_testing.imitations.anthropic.replies import event, events, reply
from dozen_testing.imitations.anthropic.rules import VERSIONS, read_request, refuse
from dozen_testing.imitations.script import (
    Refused,
    Script,
    headers_of,
    read_json,
    send_events,
    send_json,
)

_numbers = itertools.count(1)


@dataclass
class AnthropicApi:
    """Imitates `POST /v1/messages` for the holder of one key."""

    key: str
    script: Script = field(default_factory=Script)
    values: dict[str, Any] = field(default_factory=dict)
    """Of arguments and of answers after a schema, by the name of the property."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        identifier = {"request-id": f"req_{next(_numbers):04}"}
        try:
            await self._answer(scope, receive, send, identifier)
        except Refused as refused:
            body = {
                "type": "error",
                "error": {"type": refused.kind, "message": refused.message},
                "request_id": identifier["request-id"],
            }
            await send_json(send, refused.status, body, {**identifier, **refused.headers})

    async def _answer(self, scope: Scope, receive: Receive, send: Send, identifier: dict[str, str]) -> None:
        headers = headers_of(scope)
        if (scope["method"], scope["path"]) != ("POST", "/v1/messages"):
            raise Refused(404, "not_found_error", "Not found")
        given = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")
        if given != self.key:
            raise Refused(401, "authentication_error", "invalid x-api-key")
        version = headers.get("anthropic-version", "")
        if version not in VERSIONS:
            raise refuse("anthropic-version: header is required")
        if headers.get("content-type", "").partition(";")[0] != "application/json":
            raise refuse("content-type: must be application/json")
        body = await read_json(receive)
        request = read_request(body, version)
        if not request.model.startswith("claude-"):
            raise Refused(404, "not_found_error", f"model: {request.model}")
        if self.script.refusal is not None:
            raise self.script.refusal
        self.script.bodies.append(body)
        self.script.headers.append(headers)
        message = reply(request, self.values)
        if not request.stream:
            await send_json(send, 200, message, identifier)
            return
        problem = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
        await send_events(receive, send, self.script, list(events(message)), problem)
