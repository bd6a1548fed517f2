"""Deployments that fail in every way that is known, and who answers instead."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from starlette.types import Receive, Scope, Send

from dozen_chassis.admission import Admission, verify
from dozen_chassis.errors import ServiceError
from dozen_inference.breakers import State
from dozen_inference.deployments import Deployments
from dozen_inference.generation import Generator
from dozen_inference.http1 import HttpClient
from dozen_inference.outcome import Outcome
from dozen_inference.places import Deployment, Places
from dozen_inference.provider_keys import ProviderKeys
from dozen_inference.request import CompletionRequest, prepare
from dozen_inference.usage import Served
from dozen_local.ports import free_port
from dozen_testing.conditions import eventually
from dozen_testing.http import serve

PATH = "/v1/chat/completions"
OPERATION = f"POST {PATH}"
KEY = b"k" * 32
WHOLE = b'{"choices":[{"finish_reason":"stop","message":{"content":"hi"}}],"usage":{"prompt_tokens":3}}'
SAID = b'data: {"choices":[{"delta":{"content":"Gr\xc3\xbc\xc3\x9fe"},"finish_reason":null}]}\n\n'
STOP = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
STREAM = [SAID, STOP, b"data: [DONE]\n\n"]
SSE = "text/event-stream; charset=utf-8"
WELL = {"a": ["ok"], "b": ["ok"]}


def error_body(message: str, **fields: Any) -> bytes:
    return json.dumps({"error": {"message": message, **fields}}).encode()


@dataclass
class Server:
    """Gives every request the same answer: well, unless told otherwise."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: Sequence[bytes] | None = None
    """Of every answer, streamed or not."""
    ending: str = "end"
    """Or `hang`, or `die` where the connection is cut."""
    asked: list[tuple[dict[str, str], Any]] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    left: asyncio.Event = field(default_factory=asyncio.Event)
    heal: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, what hangs goes on."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["method"] == "POST"
        content, more = b"", True
        while more:
            message = await receive()
            content, more = content + message["body"], message["more_body"]
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        asked = json.loads(content)
        self.asked.append((headers, asked))
        self.arrived.set()
        speaking = asyncio.ensure_future(self._speak(bool(asked.get("stream")), send))
        leaving = asyncio.ensure_future(receive())
        try:
            await asyncio.wait((leaving, speaking), return_when=asyncio.FIRST_COMPLETED)
            if speaking.done():
                speaking.result()
            else:
                self.left.set()
        finally:
            leaving.cancel()
            speaking.cancel()

    async def _speak(self, stream: bool, send: Send) -> None:
        body = self.body if self.body is not None else STREAM if stream else [WHOLE]
        kind = SSE if stream and self.status == 200 else "application/json"
        headers = {"content-type": kind, **self.headers}
        raw = [(name.encode(), value.encode()) for name, value in headers.items()]
        if body or self.ending == "end":
            await send({"type": "http.response.start", "status": self.status, "headers": raw})
        for part in body:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        if self.ending == "hang":
            await self.heal.wait()
        assert self.ending != "die", "cuts the connection"
        await send({"type": "http.response.body"})


@dataclass
class Stage:
    """Two deployments of a model and one of its fallback, each behind a server of its own."""

    places: Places
    deployments: Deployments
    known: dict[str, Deployment]
    servers: dict[str, Server]

    async def ask(
        self, admission: Admission, *, stream: bool = False, seconds: float = 5
    ) -> tuple[Served, bytes]:
        async with self.deployments.open(
            admission, request(stream), PATH, {"x-request-id": admission.request_id}, seconds=seconds
        ) as opened:
            if not stream:
                return opened.served, await opened.read()
            return opened.served, b"".join([chunk async for chunk in opened.chunks()])

    def learn(self, deployment: str, **changes: Any) -> None:
        self.known[deployment] = replace(self.known[deployment], **changes)
        self.places.learn(self.known)

    def asked(self) -> dict[str, int]:
        return {name: len(server.asked) for name, server in self.servers.items()}


def request(stream: bool = False, model: str = "big") -> CompletionRequest:
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    return prepare(json.dumps(body).encode(), "messages", most_choices=1)


def attempts(deployment: str, outcome: str) -> float:
    labels = {"deployment": deployment, "outcome": outcome}
    return REGISTRY.get_sample_value("dozen_inference_upstream_attempts_total", labels) or 0


@pytest.fixture
def admission() -> Admission:
    facts = {
        "model": "big",
        "price": "price-big",
        "deployments": "a,b",
        "fallbacks": "c small price-small",
        "reservation": "lease-1",
    }
    return Admission("acme", "key1", "req_1", OPERATION, facts)


@asynccontextmanager
async def staged(servers: dict[str, Server], keys: Path | None = None) -> AsyncIterator[Stage]:
    models = {"a": "big", "b": "big", "c": "small"}
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(HttpClient(connect_seconds=1))
        places = Places(client, "http://127.0.0.1:9", frozenset({"own"}), most_requests=50, idle_seconds=5)

        async def route(scope: Scope, receive: Receive, send: Send) -> None:
            name = scope["path"].removesuffix(PATH).removeprefix("/")
            await servers[name](scope, receive, send)

        url = await stack.enter_async_context(serve(route))
        known = {
            name: Deployment(name, models[name], "http://chat:8080", url=f"{url}/{name}") for name in servers
        }
        places.learn(known)
        deployments = Deployments(
            places, ProviderKeys(keys), lambda passed_on, until: passed_on.headers(KEY, until)
        )
        yield Stage(places, deployments, known, servers)
        # However a request ended, it has let go of everything.
        assert {place.bulkhead.taken for place in places.places().values()} <= {0}
        assert not client._busy


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged({name: Server() for name in "abc"}, tmp_path) as stage:
        yield stage


@pytest.mark.parametrize("stream", [False, True])
async def test_the_first_one_answers_where_it_is_well(
    stage: Stage, admission: Admission, stream: bool
) -> None:
    served, answer = await stage.ask(admission, stream=stream)
    assert served == Served("a", "big", "price-big", 1)
    assert answer == (b"".join(STREAM) if stream else WHOLE)
    assert stage.asked() == {"a": 1, "b": 0, "c": 0}


FAULTS = {
    "unavailable": Server(503),
    "failing": Server(500, body=[error_body("oh")]),
    "redirecting": Server(307, {"location": "http://127.0.0.1:9/"}),
    "unauthorized": Server(401, body=[error_body("our key")]),
    "limiting": Server(429, {"retry-after": "3"}),
    "of another model": Server(404, body=[error_body("no such model")]),
    "an error with status 200": Server(body=[error_body("oh", code=500)]),
    "html with status 200": Server(headers={"content-type": "text/html"}, body=[b"<html>ok</html>"]),
    "empty": Server(body=[]),
    "cut": Server(body=[b'{"choices":['], ending="die"),
    "cut before the headers": Server(body=[], ending="die"),
}
STREAM_FAULTS = {
    "an error event at once": Server(body=[b'data: {"error":{"message":"oh","code":500}}\n\n']),
    "an error event of another form": Server(
        body=[b'event: error\ndata: {"object":"error","message":"oh","code":500}\n\n']
    ),
    "an error whose key is not the first": Server(body=[b'data: {"id":"1","error":{"message":"oh"}}\n\n']),
    "an error after a comment": Server(body=[b": ping\n\n", b'data: {"error":{"message":"oh"}}\n\n']),
    "an error after nothing to say": Server(body=[b"data: null\n\n", b'data: {"error":"oh"}\n\n']),
    "an error in pieces": Server(body=[b'data: {"err', b'or":{"message":"\xc3', b'\xa4"}}', b"\r\n\r\n"]),
    "no event": Server(body=[b": ping\n\n"]),
    "half an event": Server(body=[SAID[:20]]),
    "no events but text": Server(body=[b"Internal Server Error\n\n"]),
    "no JSON": Server(body=[b"data: <html>\n\n"]),
    "JSON instead of a stream": Server(headers={"content-type": "application/json"}, body=[WHOLE]),
    "cut in the first event": Server(body=[SAID[:-1]], ending="die"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("stream", [False, True])
async def test_the_next_one_answers_where_one_fails(
    stage: Stage, admission: Admission, fault: str, stream: bool
) -> None:
    await expect_the_next_one(stage, admission, FAULTS[fault], stream)


@pytest.mark.parametrize("fault", STREAM_FAULTS)
async def test_the_next_one_answers_where_a_stream_begins_badly(
    stage: Stage, admission: Admission, fault: str
) -> None:
    await expect_the_next_one(stage, admission, STREAM_FAULTS[fault], True)


async def expect_the_next_one(stage: Stage, admission: Admission, fault: Server, stream: bool) -> None:
    server = stage.servers["a"]
    server.status, server.headers = fault.status, fault.headers
    server.body, server.ending = fault.body, fault.ending
    async with asyncio.timeout(5):
        served, answer = await stage.ask(admission, stream=stream)
    assert served == Served("b", "big", "price-big", 2)
    assert answer == (b"".join(STREAM) if stream else WHOLE)
    assert stage.asked() == {"a": 1, "b": 1, "c": 0}


@pytest.mark.parametrize(
    "said", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", b"SSH-2.0-x\r\n", b"\x00" * 99]
)
async def test_the_next_one_answers_where_one_does_not_speak_http(
    stage: Stage, admission: Admission, said: bytes
) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(said)
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        stage.learn("a", url=f"http://{host}:{port}")
        served, _ = await stage.ask(admission)
    assert served.deployment == "b"


async def test_the_next_one_answers_where_nobody_is(stage: Stage, admission: Admission) -> None:
    stage.learn("a", url=f"http://127.0.0.1:{free_port()}")
    before = attempts("a", "unreachable")
    for _ in range(30):  # what has never arrived was no load on anybody, and costs no budget
        served, _ = await stage.ask(admission)
        assert served.deployment == "b"
    assert attempts("a", "unreachable") - before == 5  # the breaker has opened
    assert stage.places.place("a").breaker.state is State.OPEN


async def test_a_stream_that_hangs_leaves_time_for_the_next_one(stage: Stage, admission: Admission) -> None:
    stage.servers["a"].body, stage.servers["a"].ending = [], "hang"
    served, _ = await stage.ask(admission, stream=True, seconds=0.6)
    assert served.deployment == "b"
    async with asyncio.timeout(5):
        await stage.servers["a"].left.wait()


async def test_a_stream_that_only_pings_is_one_that_hangs(stage: Stage, admission: Admission) -> None:
    stage.servers["a"].body, stage.servers["a"].ending = [b": ping\n\n"] * 3, "hang"
    stage.places._idle_seconds = 0.1
    stage.places.learn(stage.known)
    served, answer = await stage.ask(admission, stream=True, seconds=3)
    assert served.deployment == "b"
    assert b"ping" not in answer


async def test_all_attempts_together_end_at_the_deadline(stage: Stage, admission: Admission) -> None:
    for server in stage.servers.values():
        server.body, server.ending = [], "hang"
    started = asyncio.get_running_loop().time()
    with pytest.raises(ServiceError) as raised:
        await stage.ask(admission, stream=True, seconds=0.3)
    assert raised.value.code == "upstream_timeout"
    assert asyncio.get_running_loop().time() - started < 2
    assert stage.asked() == {"a": 1, "b": 1, "c": 1}


@pytest.mark.parametrize("stream", [False, True])
async def test_the_deadline_holds_whatever_has_come_by_then(
    stage: Stage, admission: Admission, stream: bool
) -> None:
    for server in stage.servers.values():
        server.body, server.ending = [SAID[:20] if stream else WHOLE[:20]], "hang"
    started = asyncio.get_running_loop().time()
    with pytest.raises(ServiceError) as raised:
        await stage.ask(admission, stream=stream, seconds=0.3)
    assert raised.value.code == "upstream_timeout"
    assert asyncio.get_running_loop().time() - started < 2  # and not the five of a pause


async def test_an_event_without_an_end_is_not_waited_for_for_ever(stage: Stage, admission: Admission) -> None:
    stage.servers["a"].body, stage.servers["a"].ending = [b'data: {"x":"', *[b"a" * 100_000] * 20], "hang"
    served, _ = await stage.ask(admission, stream=True)
    assert served.deployment == "b"


async def test_a_fallback_answers_under_its_own_name_and_price(stage: Stage, admission: Admission) -> None:
    stage.servers["a"].status = stage.servers["b"].status = 500
    stage.learn("c", upstream_model="vendor/small-v2")
    settled: list[Outcome] = []

    async def settle(outcome: Outcome) -> None:
        settled.append(outcome)

    generator = Generator(
        stage.deployments, PATH, "chat", most_requests=1, first_byte_seconds=5, answer_seconds=5
    )
    answer = generator.answer(admission, request(), settle)
    assert [chunk async for chunk in answer.chunks] == [WHOLE]
    ((_, body),) = stage.servers["c"].asked
    assert body["model"] == "vendor/small-v2"
    record = settled[0].usage_record()
    assert record is not None
    assert (record.model, record.deployment_id, record.price_id) == ("small", "c", "price-small")
    assert record.lease_id == "lease-1"
    assert answer.headers == {"x-dozen-model": "small", "x-dozen-deployment": "c", "x-dozen-attempts": "3"}


async def test_a_fallback_is_called_what_the_catalogue_calls_it(stage: Stage, admission: Admission) -> None:
    stage.servers["a"].status = stage.servers["b"].status = 500
    await stage.ask(admission)
    assert [body["model"] for server in stage.servers.values() for _, body in server.asked] == [
        "big",
        "big",
        "small",
    ]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_callers_mistake_is_told_at_once_and_is_nobodys_fault(
    stage: Stage, admission: Admission, stream: bool
) -> None:
    server = stage.servers["a"]
    server.status = 400
    server.body = [
        error_body("no such role", type="invalid_request_error", param="messages", code="bad_role")
    ]
    for _ in range(30):
        with pytest.raises(ServiceError, match="no such role") as raised:
            await stage.ask(admission, stream=stream)
        assert (raised.value.http.status, raised.value.code) == (400, "bad_role")
        assert "x-should-retry" not in raised.value.headers
    assert stage.asked() == {"a": 30, "b": 0, "c": 0}
    assert stage.places.place("a").breaker.state is State.CLOSED


async def test_a_provider_that_limits_us_is_left_alone_as_long_as_it_wants(
    stage: Stage, admission: Admission
) -> None:
    stage.servers["a"].status, stage.servers["a"].headers = 429, {"retry-after": "30"}
    for _ in range(3):
        assert (await stage.ask(admission))[0].deployment == "b"
    assert stage.asked() == {"a": 1, "b": 3, "c": 0}
    assert 29 < stage.places.place("a").breaker.wait() <= 30


async def test_the_most_telling_error_is_given_with_when_to_try_again(
    stage: Stage, admission: Admission
) -> None:
    stage.servers["a"].status, stage.servers["a"].headers = 429, {"retry-after": "30"}
    stage.servers["b"].status = stage.servers["c"].status = 500
    with pytest.raises(ServiceError) as raised:
        await stage.ask(admission)
    assert (raised.value.http.status, raised.value.headers["retry-after"]) == (429, "30")
    assert stage.asked() == {"a": 1, "b": 1, "c": 1}


async def test_failures_open_a_breaker_and_a_trial_closes_it(stage: Stage, admission: Admission) -> None:
    server, alone = stage.servers["a"], {**admission.facts, "deployments": "a", "fallbacks": ""}
    admission = replace(admission, facts=alone)
    server.status = 500
    codes = []
    for _ in range(8):
        with pytest.raises(ServiceError) as raised:
            await stage.ask(admission)
        codes.append(raised.value.code)
    assert codes == ["upstream_error"] * 5 + ["upstream_unavailable"] * 3
    assert raised.value.headers == {"retry-after": "1"}  # and no word against it: it costs nobody anything
    assert stage.asked()["a"] == 5
    server.status = 200
    breaker = stage.places.place("a").breaker

    async def cooled_down() -> bool:
        return breaker.state is State.HALF_OPEN

    await eventually(cooled_down, 5)
    await stage.ask(admission)
    assert breaker.state is State.CLOSED


async def test_a_stream_that_dies_counts_against_its_deployment(stage: Stage, admission: Admission) -> None:
    stage.servers["a"].body, stage.servers["a"].ending = [SAID], "die"
    for _ in range(5):
        with pytest.raises(ServiceError):
            await stage.ask(admission, stream=True)
    assert stage.asked() == {"a": 5, "b": 0, "c": 0}  # something was said, so nobody may say it again
    assert stage.places.place("a").breaker.state is State.OPEN


async def test_one_that_hangs_takes_only_its_own_places(stage: Stage, admission: Admission) -> None:
    stage.servers["a"].body, stage.servers["a"].ending = [], "hang"
    stage.learn("a", max_requests=3)
    asking = [asyncio.ensure_future(stage.ask(admission, seconds=30)) for _ in range(20)]
    try:

        async def answered() -> bool:
            return sum(one.done() for one in asking) == 17

        await eventually(answered, 5)
        assert {one.result()[0].deployment for one in asking if one.done()} == {"b"}
        assert stage.places.place("a").bulkhead.taken == 3
    finally:
        stage.servers["a"].heal.set()
        for one in asking:
            one.cancel()
        await asyncio.wait(asking)
    assert stage.places.place("a").bulkhead.taken == 0


async def test_where_all_are_full_a_client_is_told_so_at_once(stage: Stage, admission: Admission) -> None:
    for name in stage.known:
        stage.learn(name, max_requests=1)
        stage.servers[name].body, stage.servers[name].ending = [], "hang"
    asking = [asyncio.ensure_future(stage.ask(admission, seconds=30)) for _ in range(3)]
    for server in stage.servers.values():
        await asyncio.wait_for(server.arrived.wait(), 5)
    with pytest.raises(ServiceError) as raised:
        await stage.ask(admission)
    assert (raised.value.code, raised.value.headers) == ("upstream_overloaded", {"retry-after": "1"})
    for one in asking:
        one.cancel()
    await asyncio.wait(asking)


async def test_a_client_that_leaves_stops_the_attempt_at_once(stage: Stage, admission: Admission) -> None:
    server = stage.servers["a"]
    server.body, server.ending = [], "hang"
    for _ in range(6):  # more often than a breaker would bear
        server.arrived.clear()
        server.left.clear()
        asking = asyncio.ensure_future(stage.ask(admission, seconds=30))
        await asyncio.wait_for(server.arrived.wait(), 5)
        asking.cancel()
        await asyncio.wait_for(server.left.wait(), 0.25)
        with pytest.raises(asyncio.CancelledError):
            await asking
    place = stage.places.place("a")
    assert (place.bulkhead.taken, place.breaker.state, place.ended) == (0, State.CLOSED, 0)
    assert stage.asked() == {"a": 6, "b": 0, "c": 0}


async def test_leaving_a_stream_stops_it_at_once(stage: Stage, admission: Admission) -> None:
    stage.servers["a"].body, stage.servers["a"].ending = [SAID], "hang"
    async with stage.deployments.open(admission, request(True), PATH, {}, seconds=5) as opened:
        async for chunk in opened.chunks():
            assert chunk == SAID
            break
    await asyncio.wait_for(stage.servers["a"].left.wait(), 0.25)


async def test_retries_end_with_their_budget(stage: Stage, admission: Admission) -> None:
    """Every second request fails, too few for a breaker to open after a few, too many to try all again."""
    stage.servers["a"].status = 500
    breaker = stage.places.place("a").breaker
    given_up = 0
    for _ in range(40):
        breaker._consecutive, breaker._window = 0, type(breaker._window)(10)  # so that it never opens
        (ended,) = await asyncio.gather(stage.ask(admission), return_exceptions=True)
        if isinstance(ended, ServiceError):
            given_up += 1
            assert (ended.code, ended.headers) == ("upstream_error", {"x-should-retry": "false"})
    assert stage.asked()["a"] == 40
    assert stage.asked()["b"] == 40 - given_up
    assert 10 <= stage.asked()["b"] <= 10 + 40 * 0.1
    denied = REGISTRY.get_sample_value("dozen_inference_retries_denied_total", {"model": "big"})
    assert denied is not None
    assert denied >= given_up


async def test_clients_are_told_not_to_retry_what_the_budget_does_not_bear(
    stage: Stage, admission: Admission
) -> None:
    stage.servers["a"].status = 500
    admission = replace(admission, facts={**admission.facts, "deployments": "a", "fallbacks": ""})
    breaker = stage.places.place("a").breaker
    told = []
    for _ in range(20):
        breaker._consecutive, breaker._window = 0, type(breaker._window)(10)
        with pytest.raises(ServiceError) as raised:
            await stage.ask(admission)
        told.append(raised.value.headers.get("x-should-retry"))
    assert told[:10] == [None] * 10
    assert 0 < told.count("false") <= 10


async def test_a_provider_gets_its_key_and_nobody_else_does(
    stage: Stage, admission: Admission, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "vendor").write_text("sk-very-secret\n")
    stage.learn("a", secret="vendor", upstream_model="vendor-1")
    for body in (error_body("Incorrect API key provided: sk-very-secret"), b'{"secret":"sk-very-secret"}'):
        stage.servers["a"].status, stage.servers["a"].body = 401, [body]
        assert (await stage.ask(admission))[0].deployment == "b"
    stage.servers["a"].status = 200
    assert (await stage.ask(admission))[0].deployment == "b"
    headers, body = stage.servers["a"].asked[0]
    assert (headers["authorization"], body["model"]) == ("Bearer sk-very-secret", "vendor-1")
    assert "[key]" in caplog.text
    assert "sk-very-secret" not in caplog.text
    for headers, _ in stage.servers["b"].asked:
        assert "authorization" not in headers


@pytest.mark.parametrize("status", [402, 404, 429])
async def test_what_is_between_us_and_a_provider_is_not_told(
    stage: Stage, admission: Admission, tmp_path: Path, status: int
) -> None:
    (tmp_path / "vendor").write_text("sk-1")
    stage.learn("a", secret="vendor")
    stage.servers["a"].status = status
    stage.servers["a"].body = [error_body("org-dozen owes us 7 dollars")]
    admission = replace(admission, facts={**admission.facts, "deployments": "a", "fallbacks": ""})
    with pytest.raises(ServiceError) as raised:
        await stage.ask(admission)
    assert "dozen" not in raised.value.message
    assert raised.value.http.status == (429 if status == 429 else 502)


async def test_a_provider_without_its_key_is_not_asked(stage: Stage, admission: Admission) -> None:
    stage.learn("a", secret="vendor")
    assert (await stage.ask(admission))[0].deployment == "b"
    assert stage.asked()["a"] == 0


async def test_a_deployment_that_is_not_known_here_is_left_out(stage: Stage, admission: Admission) -> None:
    admission = replace(admission, facts={**admission.facts, "deployments": "new,b"})
    assert (await stage.ask(admission))[0] == Served("b", "big", "price-big", 1)
    admission = replace(admission, facts={"model": "big", "deployments": "new"})
    with pytest.raises(ServiceError) as raised:
        await stage.ask(admission)
    assert (raised.value.http.status, raised.value.headers) == (503, {"retry-after": "1"})


async def test_a_peer_is_asked_with_an_admission_for_it_alone(stage: Stage, admission: Admission) -> None:
    stage.learn("a", address=stage.known["a"].url, url="", upstream_model="theirs/big")
    served, _ = await stage.ask(admission)
    assert served == Served("a", "big", "price-big", 1)
    ((headers, body),) = stage.servers["a"].asked
    assert body["model"] == "big"
    taken = verify(headers, OPERATION, KEY, 0)
    assert taken.facts == {"model": "big", "deployments": "a", "peer": "1"}
    assert (taken.request_id, taken.account) == ("req_1", "acme")


async def test_what_a_peer_answers_is_settled_where_it_came_from(stage: Stage, admission: Admission) -> None:
    settled: list[Outcome] = []

    async def settle(outcome: Outcome) -> None:
        settled.append(outcome)

    generator = Generator(
        stage.deployments, PATH, "chat", most_requests=1, first_byte_seconds=5, answer_seconds=5
    )
    passed_on = replace(admission, facts={"model": "big", "deployments": "a", "peer": "1"})
    assert [chunk async for chunk in generator.answer(passed_on, request(), settle).chunks] == [WHOLE]
    assert settled[0].quantities
    assert settled[0].usage_record() is None
