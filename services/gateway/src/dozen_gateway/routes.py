"""HTTP routes of the gateway itself."""

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Query
from starlette.types import Receive, Scope, Send

from dozen_chassis.errors import CallerNotTrusted, InvalidRequest
from dozen_chassis.http import Admitted, new_request_id
from dozen_chassis.signing import verify_caller
from dozen_gateway.domain.decision import Facts
from dozen_gateway.domain.rejections import Rejection
from dozen_gateway.errors import Rejected
from dozen_gateway.schemas import (
    CreatedKey,
    CreateKeyRequest,
    DecisionRequest,
    DeletedKey,
    KeyList,
    KeyObject,
)
from dozen_gateway.service.decisions import DecisionService, Passage
from dozen_gateway.service.keys import KeyService


def router(keys: KeyService) -> APIRouter:
    """Serve `/v1/keys`."""
    routes = APIRouter()

    @routes.post("/v1/keys")
    async def create_key(body: CreateKeyRequest, admission: Admitted) -> CreatedKey:
        key, text = await keys.create(admission.account, body.name)
        return CreatedKey(**KeyObject.of(key).model_dump(), value=text)

    @routes.get("/v1/keys")
    async def list_keys(
        admission: Admitted,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: str | None = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> KeyList:
        found, has_more = await keys.list(
            admission.account, limit=limit, after=after, newest_first=order == "desc"
        )
        return KeyList.of(found, has_more)

    @routes.delete("/v1/keys/{key_id}")
    async def delete_key(key_id: str, admission: Admitted) -> DeletedKey:
        key = await keys.revoke(admission.account, key_id)
        return DeletedKey(id=key.id)

    return routes


class DecisionEndpoint:
    """Raw ASGI endpoint of `POST /internal/decisions`: Kong asks here for each of its requests.

    The caller shows the token that gRPC callers show, because who decides on an id may choose what a
    request is charged under.
    """

    PATH = "/internal/decisions"

    def __init__(self, decisions: DecisionService, grpc_key: bytes) -> None:
        self._decisions = decisions
        self._grpc_key = grpc_key
        self._decoder = msgspec.json.Decoder(DecisionRequest)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        scope["route_name"] = self.PATH
        token = dict(scope["headers"]).get(b"authorization", b"").removeprefix(b"Bearer ")
        if verify_caller(self._grpc_key, token.decode("ascii", "ignore")) is None:
            raise CallerNotTrusted()
        body = self._answer(await _read(receive))
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _answer(self, body: bytes) -> bytes:
        try:
            request = self._decoder.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidRequest(f"The request body is not a decision request: {error}.") from error
        decision = self._decisions.decide(_facts(request), request.request_id or new_request_id())
        return msgspec.json.encode(
            {"rejection": _rejection(decision)}
            if isinstance(decision, Rejection)
            else {"admitted": _admitted(decision)}
        )


def _facts(request: DecisionRequest) -> Facts:
    facts = request.facts
    return Facts(
        method=facts.method,
        path=facts.path,
        model=facts.model or "",
        stream=bool(facts.stream),
        max_tokens=facts.max_tokens,
        choices=1 if facts.choices is None else facts.choices,
        body_bytes=facts.body_bytes,
        client_address=facts.client_address,
        api_key=request.api_key or "",
    )


def _admitted(passage: Passage) -> dict[str, object]:
    return {"service": passage.service, "address": passage.address, "headers": passage.headers}


def _rejection(rejection: Rejection) -> dict[str, object]:
    return {
        "http_status": rejection.http_status,
        "headers": rejection.headers,
        "body": Rejected(rejection).body(),
    }


async def _read(receive: Receive) -> bytes:
    chunks, more = [], True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(chunks)
