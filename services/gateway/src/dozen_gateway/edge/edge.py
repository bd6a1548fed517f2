"""The edge: every request under `/v1/` is decided on, and then forwarded or served here."""

import time
from contextlib import suppress

from msgspec.structs import replace
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dozen_chassis import admission
from dozen_chassis.errors import NotAdmitted, ServiceError
from dozen_gateway.domain.decision import Facts
from dozen_gateway.domain.rejections import Rejection
from dozen_gateway.edge.body import ClientBody, read_question
from dozen_gateway.edge.errors import send_error
from dozen_gateway.edge.forwarder import Answer, Forwarder
from dozen_gateway.edge.headers import api_key, own
from dozen_gateway.errors.decisions import Rejected
from dozen_gateway.errors.edge import ServiceUnreachable
from dozen_gateway.service.decisions import DecisionService

OWN_SERVICE = "gateway"


class Edge:
    """ASGI middleware before the gateway's own routes."""

    def __init__(
        self, app: ASGIApp, *, decisions: DecisionService, forwarder: Forwarder, admission_key: bytes
    ) -> None:
        self._app = app
        self._decisions = decisions
        self._forwarder = forwarder
        self._admission_key = admission_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not scope["path"].startswith("/v1/"):
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, bytes] = dict(scope["headers"])
        answer = Answer(_with_own_headers(headers, send))
        try:
            if self._is_admitted_to_us(scope, headers):
                await self._app(scope, receive, answer.send)
            else:
                await self._serve(scope, headers, receive, answer)
        except ServiceError as error:
            if answer.started:
                raise
            await send_error(scope["path"], error, scope["request_id"], [], answer.send)

    async def _serve(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive, answer: Answer
    ) -> None:
        facts = Facts(
            method=scope["method"],
            path=scope["path"],
            client_address=scope["client"][0] if scope["client"] else "",
            api_key=api_key(headers),
        )
        caller = await self._decisions.identify(facts)
        if isinstance(caller, Rejection):
            raise Rejected(caller)
        route = caller.route
        scope["route_name"] = route.pattern
        body, content = ClientBody(receive), None
        if route.capability is not None:
            kind = headers.get(b"content-type", b"").decode("latin-1")
            content, question = await read_question(facts.path, body, kind)
            facts = replace(
                facts,
                model=question.model,
                stream=question.stream,
                asked=question.asked,
                prefix=question.prefix,
            )
        decision = await self._decisions.decide(facts, scope["request_id"], caller=caller)
        if isinstance(decision, Rejection):
            raise Rejected(decision)
        answer.add_headers(decision.answer_headers)
        if decision.service == OWN_SERVICE:
            scope["admission"] = decision.admission
            await self._app(scope, receive, answer.send)
            return
        if content is None and not _has_body(headers):
            content = await body.read()
        try:
            await self._forwarder.forward(scope, decision, body, content, answer)
        except ServiceUnreachable:
            self._decisions.finish(scope["request_id"], unsent=True)
            raise
        finally:
            self._decisions.finish(scope["request_id"])

    def _is_admitted_to_us(self, scope: Scope, headers: dict[bytes, bytes]) -> bool:
        """Tell whether a request comes with an admission to our own routes, as from Kong."""
        if admission.SIGNATURE_HEADER.encode() not in headers:
            return False
        texts = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
        operation = f"{scope['method']} {scope['path']}"
        with suppress(NotAdmitted):
            scope["admission"] = admission.verify(texts, operation, self._admission_key, time.time())
            return True
        return False


def _has_body(headers: dict[bytes, bytes]) -> bool:
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"


def _with_own_headers(headers: dict[bytes, bytes], send: Send) -> Send:
    started = time.perf_counter()
    client_id = headers.get(b"x-client-request-id", b"")

    async def send_with_own(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *own(started, client_id)]
        await send(message)

    return send_with_own
