"""The way of the requests that come most often, those to models with a JSON body, at the least cost."""

import logging
import time
from functools import cache
from urllib.parse import quote

from starlette.types import Receive, Scope, Send

from dozen_chassis.errors import ServiceError
from dozen_chassis.hot import read_body
from dozen_chassis.telemetry import current_trace_headers
from dozen_gateway.domain.decision import Facts
from dozen_gateway.domain.rejections import Rejection
from dozen_gateway.edge.errors import error_event, send_error
from dozen_gateway.edge.forwarder import CONNECT_SECONDS, FORWARDED, KEEP_ALIVE_SECONDS
from dozen_gateway.edge.headers import api_key, encoded, for_client, for_service, own
from dozen_gateway.edge.question import CHAT, COMPLETIONS, EMBEDDINGS, MESSAGES, RESPONSES, read_json
from dozen_gateway.errors.decisions import Rejected
from dozen_gateway.errors.edge import AnswerBroken, ServiceFailed, ServiceTimeout, ServiceUnreachable
from dozen_gateway.service.decisions import DecisionService, Passage
from dozen_inference.http1 import ConnectFailed, HttpClient, HttpError, Response, TimedOut

log = logging.getLogger(__name__)

PATHS = (CHAT, COMPLETIONS, RESPONSES, MESSAGES, EMBEDDINGS)

_QUERY = "!$&'()*+,-./:;=?@_~%[]"
"""What a query may hold besides letters and digits; its quotes are passed on as they are."""

_forwarded = cache(FORWARDED.labels)


def forwarding_client() -> HttpClient:
    """Give the client that forwards."""
    return HttpClient(connect_seconds=CONNECT_SECONDS, keep_alive_seconds=KEEP_ALIVE_SECONDS)


class InferencePath:
    """Raw app for POST at one path; when the client leaves, its task is cancelled and the service cut off."""

    def __init__(
        self,
        path: str,
        decisions: DecisionService,
        client: HttpClient,
        *,
        answer_seconds: float,
        is_traced: bool = False,
    ) -> None:
        """`answer_seconds` is how long a service may take to its first byte, and between two."""
        self._path = path
        self._decisions = decisions
        self._client = client
        self._answer_seconds = answer_seconds
        self._is_traced = is_traced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = time.perf_counter()
        headers = dict(scope["headers"])
        client_id = headers.get(b"x-client-request-id", b"")
        try:
            passage, body = await self._admit(scope, headers, receive)
            outcome = "client_left"
            try:
                response = await self._ask(scope, headers, passage, body)
                try:
                    added = own(started, client_id)
                    added += [
                        (encoded(name), value.encode()) for name, value in passage.answer_headers.items()
                    ]
                    outcome = await self._pass_on(scope, response, added, send)
                finally:
                    response.close()
            except ServiceError:
                outcome = "unavailable"
                raise
            finally:
                _forwarded(passage.service, outcome).inc()
                self._decisions.finish(scope["request_id"])
        except ServiceError as error:
            await send_error(self._path, error, scope["request_id"], own(started, client_id), send)

    async def _admit(
        self, scope: Scope, headers: dict[bytes, bytes], receive: Receive
    ) -> tuple[Passage, bytes]:
        address = scope["client"][0] if scope["client"] else ""
        key = api_key(headers)
        caller = await self._decisions.identify(
            Facts("POST", self._path, client_address=address, api_key=key)
        )
        if isinstance(caller, Rejection):
            raise Rejected(caller)
        body = await read_body(scope, receive)
        question = read_json(self._path, body)
        facts = Facts(
            "POST",
            self._path,
            question.model,
            question.stream,
            question.asked,
            address,
            key,
            prefix=question.prefix,
        )
        decision = await self._decisions.decide(facts, scope["request_id"], caller=caller)
        if isinstance(decision, Rejection):
            raise Rejected(decision)
        return decision, body

    async def _ask(
        self, scope: Scope, headers: dict[bytes, bytes], passage: Passage, body: bytes
    ) -> Response:
        passed = for_service(scope["headers"], headers.get(b"connection", b""))
        passed += [(encoded(name), value.encode()) for name, value in passage.headers.items()]
        if self._is_traced:
            traced = {name.encode(): value.encode() for name, value in current_trace_headers().items()}
            passed = [header for header in passed if header[0] not in traced] + [*traced.items()]
        url = f"{passage.address}{self._path}"
        if query := scope["query_string"]:
            url += f"?{quote(query, _QUERY)}"
        try:
            return await self._client.send("POST", url, passed, body, first_byte_seconds=self._answer_seconds)
        except HttpError as problem:
            log.warning("%s does not answer: %r", passage.service, problem)
            if isinstance(problem, ConnectFailed):
                self._decisions.finish(scope["request_id"], unsent=True)
                raise ServiceUnreachable() from problem
            raise (ServiceTimeout if isinstance(problem, TimedOut) else ServiceFailed)() from problem

    async def _pass_on(
        self, scope: Scope, response: Response, added: list[tuple[bytes, bytes]], send: Send
    ) -> str:
        """Answer; give how that ended."""
        headers = for_client(response.headers)
        known = dict(headers)
        length = int(known.get(b"content-length", -1))
        await send({"type": "http.response.start", "status": response.status, "headers": headers + added})
        try:
            while chunk := await response.read_chunk(self._answer_seconds):
                is_whole = len(chunk) == length
                await send({"type": "http.response.body", "body": chunk, "more_body": not is_whole})
                if is_whole:
                    return "answered"
        except HttpError as problem:
            log.warning("an answer to %s broke off: %r", self._path, problem)
            is_event_stream = known.get(b"content-type", b"").startswith(b"text/event-stream")
            if is_event_stream and b"content-encoding" not in known:
                event = error_event(self._path, AnswerBroken(), scope["request_id"])
                await send({"type": "http.response.body", "body": event, "more_body": True})
            return "broken"  # without an end, at which the server cuts the connection
        await send({"type": "http.response.body"})
        return "answered"
