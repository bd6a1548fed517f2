"""The imitation, as an ASGI app."""

import re
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Receive, Scope, Send

from dozen_testing.imitations.gemini.replies import blocked, event, events, reply
from dozen_testing.imitations.gemini.rules import read_request, refuse
from dozen_testing.imitations.script import (
    Refused,
    Script,
    headers_of,
    read_json,
    send_events,
    send_json,
)

_PATH = re.compile(r"/v1(?:beta)?/(?:models|tunedModels)/([^/:]+):(generateContent|streamGenerateContent)")
_INVALID_KEY = [
    {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "API_KEY_INVALID",
        "domain": "googleapis.com",
    }
]


@dataclass
class GeminiApi:
    """Imitates `generateContent` and `streamGenerateContent` for the holder of one key."""

    key: str
    script: Script = field(default_factory=Script)
    block_reason: str | None = None
    """Given, prompts are not answered."""
    values: dict[str, Any] = field(default_factory=dict)
    """Of arguments and of answers after a schema, by the name of the property."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        try:
            await self._answer(scope, receive, send)
        except Refused as refused:
            await send_json(send, refused.status, _body(refused), refused.headers)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers, path = headers_of(scope), _PATH.fullmatch(scope["path"])
        if scope["method"] != "POST" or path is None:
            raise Refused(404, "NOT_FOUND", "Requested entity was not found.")
        key = headers.get("x-goog-api-key")
        if key is None:
            raise Refused(403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers.")
        if key != self.key:
            told = "API key not valid. Please pass a valid API key."
            raise Refused(400, "INVALID_ARGUMENT", told, details=_INVALID_KEY)
        if headers.get("content-type", "").partition(";")[0] != "application/json":
            raise refuse("Invalid JSON payload received.")
        model, method = path.groups()
        body = await read_json(receive)
        request = read_request(body, model)
        if not model.startswith("gemini-"):
            raise Refused(404, "NOT_FOUND", f"models/{model} is not found for API version v1beta.")
        if self.script.refusal is not None:
            raise self.script.refusal
        self.script.bodies.append(body)
        self.script.headers.append(headers)
        reason = self.block_reason
        answer = reply(request, model, self.values) if reason is None else blocked(model, reason)
        if method == "generateContent":
            await send_json(send, 200, answer, {})
            return
        if scope["query_string"] != b"alt=sse":
            raise refuse("The imitation streams with alt=sse only.")
        if request.generation_config.candidate_count > 1:
            raise refuse("Multiple candidates is not enabled for this model", "candidate_count")
        failed = Refused(503, "UNAVAILABLE", "The model is overloaded. Please try again later.")
        await send_events(receive, send, self.script, list(events(answer)), event(_body(failed)))


def _body(refused: Refused) -> dict[str, Any]:
    error = {"code": refused.status, "message": refused.message, "status": refused.kind, **refused.details}
    return {"error": error}
