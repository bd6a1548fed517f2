"""What Kong asks for each of its requests, and what it tells of them afterwards; raw ASGI."""

from functools import lru_cache
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from dozen_chassis.errors import BodyTooLarge, CallerNotTrusted, InvalidRequest
from dozen_chassis.signing import verify_caller
from dozen_gateway.domain.bounds import Asked
from dozen_gateway.domain.decision import Facts
from dozen_gateway.domain.rejections import Rejection
from dozen_gateway.errors.decisions import Rejected
from dozen_gateway.service.decisions import DecisionService, Passage

MOST_OUTCOMES = 1000
_MOST_BYTES = 1024 * 1024


class DecisionFacts(msgspec.Struct):
    """The facts of a request, named as in `dozen.gateway.v1.RequestFacts`."""

    method: str
    path: str
    client_address: str = ""
    body_bytes: int = 0
    model: str | None = None
    stream: bool | None = None
    max_tokens: int | None = None
    choices: int | None = None
    media_parts: int = 0
    prefix: str = ""
    """As `edge.question` makes it."""


class DecisionRequest(msgspec.Struct):
    """Body of `POST /internal/decisions`."""

    facts: DecisionFacts
    api_key: str | None = None
    request_id: str | None = None


class Outcome(msgspec.Struct):
    """How an admitted request ended, named as in `dozen.gateway.v1.RequestOutcome`."""

    request_id: str
    http_status: int = 0
    unsent: bool = False


class OutcomesRequest(msgspec.Struct):
    """Body of `POST /internal/outcomes`."""

    outcomes: list[Outcome]


class _InternalEndpoint:
    """Base of the endpoints for Kong.

    The caller shows the token that gRPC callers show, because who decides on an id may choose what a
    request is charged under.
    """

    PATH = ""

    def __init__(self, decisions: DecisionService, grpc_key: bytes) -> None:
        self._decisions = decisions
        # A token is the same for all calls of a caller.
        self._caller = lru_cache(64)(lambda token: verify_caller(grpc_key, token))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        token = b""
        for name, value in scope["headers"]:
            if name == b"authorization":
                token = value.removeprefix(b"Bearer ")
        if self._caller(token.decode("ascii", "ignore")) is None:
            raise CallerNotTrusted()
        body = msgspec.json.encode(await self._answer(await _read(receive), scope["request_id"]))
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, body: bytes, request_id: str) -> dict[str, Any]:
        raise NotImplementedError


class DecisionEndpoint(_InternalEndpoint):
    """Endpoint of `POST /internal/decisions`."""

    PATH = "/internal/decisions"

    _decoder = msgspec.json.Decoder(DecisionRequest)

    async def _answer(self, body: bytes, request_id: str) -> dict[str, Any]:
        request = _decode(self._decoder, body, "decision request")
        decision = await self._decisions.decide(_facts(request), request.request_id or request_id)
        if isinstance(decision, Rejection):
            return {"rejection": _rejection(decision)}
        return {"admitted": _admitted(decision)}


class OutcomesEndpoint(_InternalEndpoint):
    """Endpoint of `POST /internal/outcomes`."""

    PATH = "/internal/outcomes"

    _decoder = msgspec.json.Decoder(OutcomesRequest)

    async def _answer(self, body: bytes, request_id: str) -> dict[str, Any]:
        outcomes = _decode(self._decoder, body, "list of outcomes").outcomes
        if len(outcomes) > MOST_OUTCOMES:
            raise InvalidRequest(f"At most {MOST_OUTCOMES} outcomes are taken at once.", param="outcomes")
        for outcome in outcomes:
            self._decisions.finish(outcome.request_id, unsent=outcome.unsent)
        return {}


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes, what: str) -> Any:
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The request body is not a {what}: {error}.") from error


def _facts(request: DecisionRequest) -> Facts:
    facts = request.facts
    return Facts(
        method=facts.method,
        path=facts.path,
        model=facts.model or "",
        stream=bool(facts.stream),
        asked=Asked(
            body_bytes=facts.body_bytes,
            choices=1 if facts.choices is None else facts.choices,
            max_tokens=facts.max_tokens,
            media_parts=facts.media_parts,
        ),
        client_address=facts.client_address,
        api_key=request.api_key or "",
        prefix=facts.prefix,
    )


def _admitted(passage: Passage) -> dict[str, Any]:
    return {
        "service": passage.service,
        "address": passage.address,
        "headers": passage.headers,
        "answer_headers": passage.answer_headers,
    }


def _rejection(rejection: Rejection) -> dict[str, Any]:
    return {
        "http_status": rejection.http_status,
        "headers": rejection.headers,
        "body": Rejected(rejection).body(),
    }


async def _read(receive: Receive) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body", False):
        message = await receive()
        body += message.get("body", b"")
        if len(body) > _MOST_BYTES:
            raise BodyTooLarge()
    return body
