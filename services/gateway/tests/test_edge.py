"""The edge before a real upstream: what it passes on, what it keeps back, and when it gives up."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from starlette.middleware import Middleware
from starlette.types import Message, Receive, Scope, Send
from yarl import URL

from dozen_chassis import admission
from dozen_chassis.hot import HotPaths, read_body
from dozen_chassis.http import create_http
from dozen_chassis.signing import derive_key
from dozen_gateway.domain.state import Account, Snapshot, State
from dozen_gateway.edge.edge import Edge
from dozen_gateway.edge.forwarder import Forwarder, open_session
from dozen_gateway.edge.inference import PATHS, InferencePath, forwarding_client
from dozen_gateway.service.decisions import DecisionService
from dozen_testing.http import serve

MASTER_KEY = b"master"
MIB = 1024 * 1024
ANSWER_SECONDS = 0.5
Reply = Callable[[Scope, Receive, Send], Any]
CHAT = {"model": "smol", "messages": []}


@dataclass
class Upstream:
    """A service: keeps what it is asked, and answers as the test wants."""

    scopes: list[Scope] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a request is cancelled by the gateway."""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    reply: Reply | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        self.scopes.append(scope)
        self.reached.set()
        if self.reply is not None:
            await self.reply(scope, receive, send)
            return
        try:
            self.bodies.append(await read(receive))
        except ConnectionResetError:
            return
        await start(send, [(b"content-type", b"application/json"), (b"x-request-id", b"theirs")])
        await send({"type": "http.response.body", "body": b'{"ok":true}'})

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the last request."""
        return {name.decode(): value.decode() for name, value in self.scopes[-1]["headers"]}


async def start(send: Send, headers: list[tuple[bytes, bytes]], status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def chunk(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


async def read(receive: Receive) -> bytes:
    chunks, more = [], True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        chunks.append(message["body"])
        more = message["more_body"]
    return b"".join(chunks)


@dataclass
class Stage:
    """A gateway before its upstream, and a client of it."""

    url: str
    upstream: Upstream
    state: State
    client: aiohttp.ClientSession
    own: list[Scope]
    """The requests that the gateway served itself."""

    async def post(self, path: str = "/v1/chat/completions", **more: Any) -> aiohttp.ClientResponse:
        return await self.client.post(
            f"{self.url}{path}", **({} if "data" in more else {"json": CHAT}) | more
        )


@pytest.fixture
async def stage(
    known: Callable[[str], Snapshot],
    decisions_on: Callable[[State, str, bytes], DecisionService],
    api_key: str,
) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        upstream, state, own = Upstream(), State(), list[Scope]()
        address = await stack.enter_async_context(serve(upstream))
        state.learn(known(address))

        async def own_routes(scope: Scope, receive: Receive, send: Send) -> None:
            own.append(scope)
            await start(send, [])
            await chunk(send, await read(receive), more=False)

        decisions = decisions_on(state, address, MASTER_KEY)
        forwarder = Forwarder(await stack.enter_async_context(open_session()))
        app = create_http(
            "gateway",
            [],
            middleware=[
                Middleware(
                    Edge,
                    decisions=decisions,
                    forwarder=forwarder,
                    admission_key=derive_key(MASTER_KEY, "admission:gateway"),
                )
            ],
            takes_request_ids=False,
            max_body_bytes=MIB,
            body_limits=[("/v1/files", 8 * MIB)],
        )
        app.router.default = own_routes
        client = await stack.enter_async_context(forwarding_client())
        hot = {path: InferencePath(path, decisions, client, answer_seconds=ANSWER_SECONDS) for path in PATHS}
        edge = HotPaths(app, hot, takes_request_ids=False, max_body_bytes=MIB)
        url = await stack.enter_async_context(serve(edge))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(headers={"authorization": f"Bearer {api_key}"}, auto_decompress=False)
        )
        await stack.enter_async_context(asyncio.timeout(30))
        yield Stage(url, upstream, state, session, own)


async def error(response: aiohttp.ClientResponse) -> tuple[int, str]:
    """Give the status and code of an error, which must be in OpenAI's form."""
    body = await response.json()
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert response.headers["x-request-id"].startswith("req_")
    assert int(response.headers["openai-processing-ms"]) >= 0
    return response.status, body["error"]["code"]


async def test_a_request_reaches_its_service_signed_and_the_answer_comes_back(stage: Stage) -> None:
    response = await stage.post(params={"a": "b c"}, headers={"x-client-request-id": "mine"})
    assert (response.status, await response.json()) == (200, {"ok": True})
    assert json.loads(stage.upstream.bodies[0]) == CHAT
    (scope,) = stage.upstream.scopes
    assert (scope["method"], scope["path"], scope["query_string"]) == (
        "POST",
        "/v1/chat/completions",
        b"a=b+c",
    )
    key = derive_key(MASTER_KEY, "admission:chat")
    admitted = admission.verify(stage.upstream.headers, "POST /v1/chat/completions", key, 0)
    assert (admitted.account, admitted.key) == ("acme", "key1")
    assert admitted.facts == {
        "model": "smol", "deployments": "smol-chat", "price": "price-smol",
        "reservation": "lease_acme", "max-tokens": "2048", "uncapped": "1",
    }  # fmt: skip
    assert response.headers.getall("x-request-id") == [admitted.request_id]
    assert response.headers["x-client-request-id"] == "mine"
    assert int(response.headers["openai-processing-ms"]) >= 0


async def test_what_clients_may_not_say_is_not_passed_on(stage: Stage, api_key: str) -> None:
    await stage.post(
        headers={
            "x-dozen-account": "victim", "X-Dozen-Budget": "all", "x-dozen-admission": "1.forged",
            "x-request-id": "req_chosen", "x-api-key": "secret", "connection": "keep-alive, x-hop",
            "x-hop": "1", "te": "trailers", "cookie": "a=b", "openai-beta": "assistants=v2",
        }
    )  # fmt: skip
    headers = stage.upstream.headers
    assert headers["x-dozen-account"] == "acme"
    assert headers["x-request-id"] != "req_chosen"
    assert not {"x-dozen-budget", "authorization", "x-api-key", "x-hop", "te"} & set(headers)
    assert api_key not in json.dumps(headers)
    assert headers["openai-beta"] == "assistants=v2"
    assert headers["host"] in stage.state.models["smol"].deployments[0].address
    admission.verify(
        headers, "POST /v1/chat/completions", derive_key(MASTER_KEY, "admission:chat"), 0
    )  # nothing of the client's is among what is signed


async def test_the_key_may_come_as_x_api_key(stage: Stage, api_key: str) -> None:
    async with aiohttp.ClientSession() as client:
        response = await client.post(
            f"{stage.url}/v1/chat/completions", json=CHAT, headers={"x-api-key": api_key}
        )
        assert response.status == 200
        assert await error(await client.get(f"{stage.url}/v1/files")) == (401, "invalid_api_key")


async def test_the_answer_is_passed_on_as_it_is(stage: Stage, known: Callable[[str], Snapshot]) -> None:
    address = stage.state.models["smol"].deployments[0].address
    stage.state.learn(known(address.replace("127.0.0.1", "localhost")))  # cookies are for names only

    async def reply(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        await start(
            send,
            [
                (b"content-encoding", b"gzip"), (b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2"),
                (b"connection", b"x-hop"), (b"x-hop", b"1"), (b"location", b"/elsewhere"),
                (b"date", b"theirs"),
            ],
            status=302,
        )  # fmt: skip
        await chunk(send, b"not really gzip", more=False)

    stage.upstream.reply = reply
    response = await stage.post(allow_redirects=False)
    assert (response.status, await response.read()) == (302, b"not really gzip")
    assert response.headers.getall("set-cookie") == ["a=1", "b=2"]
    assert "x-hop" not in response.headers
    assert "theirs" not in response.headers.getall("date", [])
    stage.upstream.reply = None
    await stage.post()
    assert "cookie" not in stage.upstream.headers


async def test_a_stream_comes_chunk_by_chunk(stage: Stage) -> None:
    seen = asyncio.Queue[None]()

    async def reply(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        await start(send, [(b"content-type", b"text/event-stream")])
        for number in range(5):
            await chunk(send, b"data: %d\n\n" % number)
            await seen.get()  # the next is not sent before the client has this one
        await chunk(send, b"data: [DONE]\n\n", more=False)

    stage.upstream.reply = reply
    response = await stage.post(json=CHAT | {"stream": True})
    for number in range(5):
        assert await response.content.readany() == b"data: %d\n\n" % number
        seen.put_nowait(None)
    assert await response.content.read() == b"data: [DONE]\n\n"


@pytest.mark.parametrize("streaming", [True, False])
async def test_who_leaves_cancels_the_upstream_within_a_quarter_of_a_second(
    stage: Stage, streaming: bool
) -> None:
    async def reply(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        if streaming:
            await start(send, [(b"content-type", b"text/event-stream")])
            await chunk(send, b"data: 1\n\n")
        while (await receive())["type"] != "http.disconnect":
            pass
        stage.upstream.gone.set()

    stage.upstream.reply = reply
    async with aiohttp.ClientSession(headers=stage.client.headers) as client:
        asking = asyncio.ensure_future(client.post(f"{stage.url}/v1/chat/completions", json=CHAT))
        if streaming:
            await (await asking).content.readany()
        else:
            await stage.upstream.reached.wait()
            asking.cancel()
    async with asyncio.timeout(0.25):
        await stage.upstream.gone.wait()


async def test_who_leaves_cuts_off_what_is_behind_the_service_as_fast(
    stage: Stage, known: Callable[[str], Snapshot]
) -> None:
    behind = Upstream()

    async def generate(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        await start(send, [(b"content-type", b"text/event-stream")])
        await chunk(send, b"data: 1\n\n")
        while (await receive())["type"] != "http.disconnect":
            pass
        behind.gone.set()

    behind.reply = generate
    async with serve(behind) as server, forwarding_client() as forwarder:

        async def relay(scope: Scope, receive: Receive, send: Send) -> None:
            body = await read_body(scope, receive)
            response = await forwarder.send("POST", server, [], body, first_byte_seconds=5)
            try:
                await start(send, response.headers)
                while part := await response.read_chunk(5):
                    await chunk(send, part)
            finally:
                response.close()

        async with serve(HotPaths(stage.upstream, {"/v1/chat/completions": relay})) as service:
            stage.state.learn(known(service))
            async with aiohttp.ClientSession(headers=stage.client.headers) as client:
                response = await client.post(f"{stage.url}/v1/chat/completions", json=CHAT)
                await response.content.readany()
            async with asyncio.timeout(0.25):
                await behind.gone.wait()


async def test_an_upstream_that_is_not_there_is_unavailable(
    stage: Stage, known: Callable[[str], Snapshot]
) -> None:
    async with serve(stage.upstream) as gone:
        pass
    stage.state.learn(known(gone))
    assert await error(await stage.post()) == (503, "service_unavailable")


async def test_an_upstream_that_hangs_up_or_talks_nonsense_has_failed(stage: Stage) -> None:
    async def hang_up(scope: Scope, receive: Receive, send: Send) -> None:
        scope["connection"].transport.abort()

    async def talk_nonsense(scope: Scope, receive: Receive, send: Send) -> None:
        scope["connection"].transport.write(b"220 smtp.example.com\r\n")

    for stage.upstream.reply in (hang_up, talk_nonsense):
        assert await error(await stage.post()) == (502, "service_failed")
    stage.upstream.reply = None
    assert (await stage.post()).status == 200


async def test_an_upstream_that_hangs_has_timed_out(stage: Stage) -> None:
    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        stage.upstream.gone.set()

    stage.upstream.reply = hang
    assert await error(await stage.post()) == (504, "service_timeout")
    await stage.upstream.gone.wait()


async def test_an_upstream_that_hangs_in_its_answer_is_cut_off(stage: Stage) -> None:
    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        await start(send, [(b"content-type", b"text/plain")])
        await chunk(send, b"half")
        while (await receive())["type"] != "http.disconnect":
            pass
        stage.upstream.gone.set()

    stage.upstream.reply = hang
    response = await stage.post()
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.read()
    await stage.upstream.gone.wait()


async def test_requests_share_a_connection(stage: Stage) -> None:
    for _ in range(5):
        assert (await stage.post()).status == 200
    assert len({scope["client"] for scope in stage.upstream.scopes}) == 1


async def test_what_is_the_service_s_affair_reaches_it(stage: Stage) -> None:
    await stage.post(headers={"x-cache": "on", "traceparent": "00-1-2-01", "idempotency-key": "once"})
    headers = stage.upstream.headers
    assert (headers["x-cache"], headers["traceparent"]) == ("on", "00-1-2-01")
    assert headers["idempotency-key"] == "once"


async def anthropic_error(response: aiohttp.ClientResponse) -> tuple[int, str]:
    """Give the status and type of an error, which must be in Anthropic's form."""
    body = await response.json()
    assert body.keys() == {"type", "error", "request_id"}
    assert body["error"].keys() == {"type", "message"}
    assert body["request_id"] == response.headers["x-request-id"] == response.headers["request-id"]
    assert body["type"] == "error"
    return response.status, body["error"]["type"]


async def test_on_anthropic_s_path_errors_are_in_its_words(stage: Stage) -> None:
    path = "/v1/messages"
    wrong = await stage.post(path, headers={"authorization": "", "x-api-key": "wrong"})
    assert await anthropic_error(wrong) == (401, "authentication_error")
    too_large = await stage.post(path, data=b"x" * MIB * 2)
    assert await anthropic_error(too_large) == (413, "request_too_large")
    refused = await stage.client.delete(f"{stage.url}{path}")
    assert await anthropic_error(refused) == (405, "invalid_request_error")


async def test_who_cannot_pay_for_a_message_is_told_so(stage: Stage) -> None:
    stage.state.learn(Snapshot(accounts={"acme": Account(0, 2)}))
    response = await stage.post("/v1/messages", json=CHAT | {"max_tokens": 5})
    assert await anthropic_error(response) == (429, "billing_error")
    assert response.headers["x-should-retry"] == "false"


async def test_anthropic_s_clients_are_served(stage: Stage, api_key: str) -> None:
    headers = {"x-api-key": api_key, "anthropic-version": "2023-06-01"}
    async with aiohttp.ClientSession(headers=headers) as client:
        asked = CHAT | {"max_tokens": 5}
        response = await client.post(f"{stage.url}/v1/messages?beta=true", json=asked)
        assert response.status == 200
        unknown = await client.post(f"{stage.url}/v1/messages", json=asked | {"model": "none"})
        assert await anthropic_error(unknown) == (404, "not_found_error")
    (scope,) = stage.upstream.scopes
    assert (scope["path"], scope["query_string"]) == ("/v1/messages", b"beta=true")
    assert stage.upstream.headers["anthropic-version"] == "2023-06-01"
    assert stage.upstream.headers["x-dozen-max-tokens"] == "5"


async def test_a_stream_of_messages_that_breaks_off_says_so_in_anthropic_s_words(stage: Stage) -> None:
    stage.upstream.reply = breaking_off(b"text/event-stream", b"event: ping\ndata: {}\n\n")
    response = await stage.post("/v1/messages")
    received = b""

    async def read_on() -> None:
        nonlocal received
        while True:
            received += await response.content.readany()

    with pytest.raises(aiohttp.ClientPayloadError):
        await read_on()
    name, _, data = received.split(b"\n\n")[2].partition(b"\ndata: ")
    assert name == b"event: error"
    assert json.loads(data)["error"]["type"] == "api_error"


def breaking_off(kind: bytes, first: bytes) -> Reply:
    async def reply(scope: Scope, receive: Receive, send: Send) -> None:
        await read(receive)
        await start(send, [(b"content-type", kind)])
        await chunk(send, first)  # and no more, at which the server cuts the connection

    return reply


async def test_where_the_upstream_breaks_off_so_do_we(stage: Stage) -> None:
    stage.upstream.reply = breaking_off(b"audio/mpeg", b"half a")
    response = await stage.post()
    assert response.status == 200
    assert await response.content.readexactly(6) == b"half a"
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.content.read()


async def test_an_event_stream_that_breaks_off_says_so(stage: Stage) -> None:
    stage.upstream.reply = breaking_off(b"text/event-stream; charset=utf-8", b"data: 1\n\n")
    response = await stage.post()
    received = b""

    async def read_on() -> None:
        nonlocal received
        while True:
            received += await response.content.readany()

    with pytest.raises(aiohttp.ClientPayloadError):
        await read_on()
    events = [event for event in received.split(b"\n\n") if event]
    assert events[0] == b"data: 1"
    assert json.loads(events[1].removeprefix(b"data: "))["error"]["code"] == "service_failed"
    assert b"[DONE]" not in received


async def test_an_upload_is_not_held_in_memory(stage: Stage) -> None:
    arrived = asyncio.Queue[bytes]()

    async def reply(scope: Scope, receive: Receive, send: Send) -> None:
        more = True
        while more:
            message = await receive()
            arrived.put_nowait(message["body"])
            more = message["more_body"]
        await start(send, [])
        await chunk(send, b"", more=False)

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(5):
            piece = b"%d" % number
            yield piece
            received = b""
            while received != piece:  # the next is not sent before the service has this one
                received += await arrived.get()

    stage.upstream.reply = reply
    response = await stage.post("/v1/files", data=pieces())
    assert response.status == 200
    assert stage.upstream.headers["transfer-encoding"] == "chunked"


async def test_a_large_upload_arrives_whole_with_its_length(stage: Stage) -> None:
    content = bytes(range(256)) * 4096 * 4  # four times what other routes take
    response = await stage.post("/v1/files", data=content)
    assert response.status == 200
    assert stage.upstream.bodies[0] == content
    assert stage.upstream.headers["content-length"] == str(len(content))


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/jobs", "/v1/files"])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_the_limit_is_refused(stage: Stage, path: str, declared: bool) -> None:
    size = 9 if path == "/v1/files" else 2

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(size):
            yield b"x" * MIB

    data = b"x" * MIB * size if declared else pieces()
    response = await stage.post(path, data=data)
    assert response.status == 413
    assert (await response.json())["error"]["code"] == "request_too_large"
    assert not stage.upstream.bodies


async def test_who_leaves_in_the_middle_of_an_upload_leaves_nothing_behind(stage: Stage) -> None:
    ended = asyncio.Queue[str]()

    async def reply(scope: Scope, receive: Receive, send: Send) -> None:
        message: Message = {"type": "http.request"}
        while message["type"] == "http.request" and message.get("more_body", True):
            message = await receive()
        ended.put_nowait(message["type"])

    async def endless() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    stage.upstream.reply = reply
    uploading = asyncio.ensure_future(stage.post("/v1/files", data=endless()))
    await stage.upstream.reached.wait()
    uploading.cancel()
    assert await ended.get() == "http.disconnect"


def form(*parts: tuple[str, bytes]) -> dict[str, Any]:
    """Give a form as curl would send it."""
    body = b"".join(
        b"--b0undary\r\nContent-Disposition: form-data; %s\r\n\r\n%s\r\n" % (name.encode(), value)
        for name, value in parts
    )
    return {
        "path": "/v1/audio/transcriptions",
        "data": body + b"--b0undary--\r\n",
        "headers": {"content-type": "multipart/form-data; boundary=b0undary"},
    }


FILE = ('name="file"; filename="a.wav"', b'\r\n--b0und name="model"\r\n' + bytes(range(256)) * 1000)
MODEL = ('name="model"', b"whisper")


@pytest.mark.parametrize("parts", [[FILE, MODEL], [MODEL, FILE], [MODEL]])
async def test_the_model_is_read_from_a_form_that_is_passed_on_as_it_is(
    stage: Stage, parts: list[tuple[str, bytes]]
) -> None:
    response = await stage.post(**form(*parts))
    assert response.status == 200
    assert stage.upstream.headers["x-dozen-model"] == "whisper"
    assert stage.upstream.bodies[0] == form(*parts)["data"]


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ([FILE], 400, "missing_required_parameter"),
        ([MODEL, ('name="model"', b"smol")], 400, "invalid_request"),
        ([('name="model"', b"\xff")], 400, "invalid_request"),
        ([('name="model"', b"m" * 2000)], 400, "invalid_request"),
        ([MODEL] + [('name="x"', b"")] * 100, 400, "invalid_request"),
        ([('name="model"', b"nothing")], 404, "model_not_found"),
        ([('name="model"', b"hibari")], 404, "model_not_found"),
    ],
)
async def test_a_form_without_one_good_model_is_refused(
    stage: Stage, parts: list[tuple[str, bytes]], status: int, code: str
) -> None:
    assert await error(await stage.post(**form(*parts))) == (status, code)


@pytest.mark.parametrize(
    ("boundary", "cut"), [("", 0), ("; boundary=", 0), ("; boundary=other", 0), ("; boundary=b0undary", 10)]
)
async def test_a_broken_form_is_refused(stage: Stage, boundary: str, cut: int) -> None:
    request = form(MODEL)
    request["data"] = request["data"][: len(request["data"]) - cut]
    request["headers"] = {"content-type": f"multipart/form-data{boundary}"}
    assert await error(await stage.post(**request)) == (400, "invalid_request")


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'"smol"', b"null", b'{"model": 5}', b'{"model": "smol", "stream": "yes"}',
        b'{"model": "\xff"}', b'{"model": "\\ud800"}', b'{"x": ' + b"[" * 100_000,
    ],
)  # fmt: skip
async def test_a_broken_body_is_refused_where_a_model_is_needed(stage: Stage, body: bytes) -> None:
    status, code = await error(await stage.post(data=body))
    assert (status, code) == (400, "invalid_request")


async def test_where_no_model_is_needed_the_body_is_the_service_s_affair(stage: Stage) -> None:
    response = await stage.post("/v1/jobs", data=b"{")
    assert response.status == 200
    assert stage.upstream.bodies == [b"{"]


async def test_the_key_is_looked_at_before_the_body(stage: Stage) -> None:
    response = await stage.post(data=b"{", headers={"authorization": "Bearer wrong"})
    assert await error(response) == (401, "invalid_api_key")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("PUT", "/v1/chat/completions", 405, "method_not_allowed"),
        ("GET", "/v1/files/..%2F..%2Fx", 404, "unknown_url"),
    ],
)
async def test_what_is_not_served_is_said_in_openai_s_form(
    stage: Stage, method: str, path: str, status: int, code: str
) -> None:
    response = await stage.client.request(method, URL(stage.url + path, encoded=True))
    assert await error(response) == (status, code)


async def test_rejections_keep_their_headers(stage: Stage) -> None:
    stage.state.learn(Snapshot(accounts={"acme": Account(0, 2)}))
    response = await stage.post(headers={"x-client-request-id": "mine"})
    assert await error(response) == (429, "insufficient_quota")
    assert response.headers["x-should-retry"] == "false"
    assert response.headers["x-client-request-id"] == "mine"
    assert not stage.upstream.scopes


async def test_a_request_without_a_body_has_none_at_the_service(stage: Stage) -> None:
    response = await stage.client.get(f"{stage.url}/v1/models/acme%2Fsmol?x=%2F%20")
    assert response.status == 200
    assert stage.upstream.scopes[0]["path"] == "/v1/models/acme/smol"
    assert stage.upstream.scopes[0]["query_string"] == b"x=/%20"
    assert stage.upstream.bodies == [b""]
    assert "x-dozen-model" not in stage.upstream.headers


async def test_own_routes_are_served_here(stage: Stage) -> None:
    response = await stage.post("/v1/keys", json={"name": "laptop"})
    assert (response.status, await response.read()) == (200, b'{"name": "laptop"}')
    (scope,) = stage.own
    assert (scope["admission"].account, scope["admission"].operation) == ("acme", "POST /v1/keys")
    assert scope["admission"].request_id == response.headers["x-request-id"]
    assert not stage.upstream.scopes


async def test_own_routes_are_served_to_who_brings_an_admission(stage: Stage) -> None:
    admitted = admission.Admission("other", "key9", "req_1", "GET /v1/keys")
    async with aiohttp.ClientSession() as client:
        for service, status in (("gateway", 200), ("chat", 401)):
            signed = admitted.headers(derive_key(MASTER_KEY, f"admission:{service}"), 2**40)
            response = await client.get(f"{stage.url}/v1/keys", headers=signed)
            assert response.status == status
        signed = admitted.headers(derive_key(MASTER_KEY, "admission:gateway"), 2**40)
        assert (await client.get(f"{stage.url}/v1/files", headers=signed)).status == 401
    (scope,) = stage.own
    assert scope["admission"] == admitted


async def test_other_paths_pass_without_a_key(stage: Stage) -> None:
    async with aiohttp.ClientSession() as client:
        assert (await client.get(f"{stage.url}/healthz")).status == 200
    assert stage.own[0]["path"] == "/healthz"


async def test_no_log_line_holds_a_key(stage: Stage, api_key: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "dz-acme-key1-0123456789wrong"
    await stage.post()
    await stage.post(headers={"authorization": f"Bearer {wrong}"})
    assert caplog.records
    for record in caplog.records:
        assert not any(key in str(vars(record)) for key in (api_key, wrong, "5ecret"))
