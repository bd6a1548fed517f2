"""Hot paths: served before everything else, with all that every request must have."""

import asyncio
import json
from collections.abc import AsyncIterator

import aiohttp
import pytest
from opentelemetry import trace
from starlette.types import Receive, Scope, Send

from dozen_chassis.errors import InvalidRequest
from dozen_chassis.hot import HotPaths, read_body
from dozen_chassis.http import REQUESTS
from dozen_chassis.logging import RequestLog, request_id
from dozen_chassis.telemetry import configure_tracing, current_trace_headers
from dozen_testing.http import Signer, serve

pytestmark = pytest.mark.integration

LIMIT = 100_000


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """Say which app answers."""
    await answer(send, b"the other app")


async def answer(send: Send, body: bytes) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def hot(scope: Scope, receive: Receive, send: Send) -> None:
    """Tell what the request has."""
    admitted = scope.get("admission")
    facts = {
        "id": scope["request_id"],
        "context": request_id.get(),
        "account": admitted.account if admitted else None,
        "body": len(await read_body(scope, receive)),
        "trace": current_trace_headers().get("traceparent", ""),
    }
    await answer(send, json.dumps(facts).encode())


async def refusing(scope: Scope, receive: Receive, send: Send) -> None:
    raise InvalidRequest("Not so.")


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    raise RuntimeError("secret")


async def cut(scope: Scope, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"first", "more_body": True})
    raise RuntimeError("secret")


PATHS = {"/hot": hot, "/v1/hot": hot, "/no": refusing, "/bug": broken, "/cut": cut}


@pytest.fixture
async def url(signer: Signer) -> AsyncIterator[str]:
    app = HotPaths(
        plain, PATHS, admission_key=signer.key, max_body_bytes=LIMIT, body_limits=[("/v1/", LIMIT // 2)]
    )
    async with serve(app) as url:
        yield url


@pytest.fixture
async def client(url: str) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(url) as session, asyncio.timeout(20):
        yield session


def counted(path: str, status: int) -> float:
    counter: float = REQUESTS.labels("POST", path, status)._value.get()
    return counter


async def error_of(response: aiohttp.ClientResponse) -> tuple[int, str]:
    error = (await response.json())["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "secret" not in error["message"]
    assert response.headers["x-request-id"].startswith("req_")
    return response.status, error["code"]


@pytest.mark.parametrize(
    ("method", "path", "is_hot"),
    [("POST", "/hot", True), ("GET", "/hot", False), ("POST", "/hot/", False), ("POST", "/", False)],
)
async def test_exact_paths_are_served_by_their_apps(
    client: aiohttp.ClientSession, method: str, path: str, is_hot: bool
) -> None:
    response = await client.request(method, path)
    assert (await response.text() != "the other app") == is_hot


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [("/no", 400, "invalid_request"), ("/bug", 500, "internal_error"), ("/v1/hot", 401, "not_admitted")],
)
async def test_errors_have_the_usual_form_and_are_counted(
    client: aiohttp.ClientSession, path: str, status: int, code: str
) -> None:
    before = counted(path, status)
    assert await error_of(await client.post(path)) == (status, code)
    assert counted(path, status) == before + 1


async def test_an_error_after_the_first_byte_cuts_the_answer(client: aiohttp.ClientSession) -> None:
    response = await client.post("/cut")
    assert await response.content.readexactly(5) == b"first"
    with pytest.raises(aiohttp.ClientPayloadError):
        await response.content.read()


@pytest.mark.parametrize(("given", "kept"), [("abc-1.2:3_x", True), ("two words", False), ("", False)])
async def test_a_request_has_one_id_everywhere(client: aiohttp.ClientSession, given: str, kept: bool) -> None:
    response = await client.post("/hot", headers={"x-request-id": given})
    facts = await response.json()
    assert response.headers.getall("x-request-id") == [facts["id"]] == [facts["context"]]
    assert (facts["id"] == given) == kept


async def test_an_edge_takes_no_ids(client: aiohttp.ClientSession) -> None:
    async with serve(HotPaths(plain, PATHS, takes_request_ids=False)) as url:
        facts = await (await client.post(f"{url}/hot", headers={"x-request-id": "chosen"})).json()
    assert facts["id"].startswith("req_")


async def test_an_admission_is_verified(client: aiohttp.ClientSession, signer: Signer) -> None:
    admitted = signer.headers("POST /v1/hot", request_id="req_1")
    facts = await (await client.post("/v1/hot", headers=admitted)).json()
    assert (facts["id"], facts["account"]) == ("req_1", "acme")
    other = signer.headers("POST /v1/other")
    assert await error_of(await client.post("/v1/hot", headers=other)) == (401, "not_admitted")


@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize(("path", "limit"), [("/hot", LIMIT), ("/v1/hot", LIMIT // 2)])
async def test_a_body_may_be_as_large_as_its_path_takes(
    client: aiohttp.ClientSession, signer: Signer, path: str, limit: int, declared: bool
) -> None:
    async def pieces(size: int) -> AsyncIterator[bytes]:
        for start in range(0, size, 10_000):
            yield bytes(min(10_000, size - start))

    for size in (0, limit, limit + 1):
        headers = signer.headers(f"POST {path}")
        response = await client.post(path, data=bytes(size) if declared else pieces(size), headers=headers)
        if size <= limit:
            assert (await response.json())["body"] == size
        else:
            assert await error_of(response) == (413, "request_too_large")


@pytest.mark.parametrize("moment", ["before the body", "before the answer", "within the answer"])
async def test_who_leaves_cancels_the_request(moment: str) -> None:
    began, left = asyncio.Event(), asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        began.set()
        try:
            if moment == "before the body":
                await read_body(scope, receive)
            elif moment == "within the answer":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": b"first", "more_body": True})
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # what has to be done still can be
            left.set()

    before = counted("/slow", 499)
    async with serve(HotPaths(plain, {"/slow": slow})) as url, asyncio.timeout(20):
        port = int(url.rpartition(":")[2])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        length = 10 if moment == "before the body" else 0
        writer.write(b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % length)
        await began.wait()
        writer.close()
        async with asyncio.timeout(0.25):
            await left.wait()
    assert counted("/slow", 499) == before + 1


async def test_who_leaves_after_the_answer_cancels_nothing() -> None:
    gone, done = asyncio.Event(), asyncio.Event()

    async def settling(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"all")
        await gone.wait()
        await asyncio.sleep(0)
        done.set()

    async with serve(HotPaths(plain, {"/x": settling})) as url, asyncio.timeout(20):
        async with aiohttp.ClientSession() as session:
            response = await session.post(f"{url}/x", headers={"connection": "close"})
            assert await response.read() == b"all"
        gone.set()
        await done.wait()


async def test_a_request_belongs_to_its_caller_s_trace(client: aiohttp.ClientSession) -> None:
    configure_tracing("test", None)
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    app = HotPaths(plain, PATHS, is_traced=True)
    async with serve(app) as url:
        facts = await (await client.post(f"{url}/hot", headers={"traceparent": parent})).json()
        assert facts["trace"].split("-")[1] == parent.split("-")[1]
        assert facts["trace"].split("-")[2] != parent.split("-")[2]
    assert not trace.get_current_span().get_span_context().is_valid


async def test_each_public_request_has_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    log = RequestLog("shop")
    app = HotPaths(plain, {**PATHS, "/v1/no": refusing}, log=log)
    async with serve(app) as url, aiohttp.ClientSession(url) as client:
        await client.post("/no", headers={"x-request-id": "req_0"})
        await client.post("/v1/hot?key=secret", headers={"x-request-id": "req_1"})
        await client.post("/v1/no", headers={"x-request-id": "req_2"})
        written = ""
        while written.count("\n") < 2:
            written += capfd.readouterr().err
            await asyncio.sleep(0)
    lines = [json.loads(line) for line in written.splitlines()]
    assert [(line["request_id"], line["path"], line["status"]) for line in lines] == [
        ("req_1", "/v1/hot", 200),
        ("req_2", "/v1/no", 400),
    ]
    assert lines[0].keys() >= {"time", "level", "logger", "message", "service", "trace_id", "milliseconds"}
    assert "secret" not in written


@pytest.mark.parametrize(
    ("request_line", "rest", "first"),
    [
        (b"POST /hot", b"expect: 100-continue\r\ncontent-length: 4\r\n", b"HTTP/1.1 100 Continue"),
        (b"HEAD /", b"connection: close\r\n", b"HTTP/1.1 200 OK"),
        (b"HEAD /", b"", b"HTTP/1.1 200 OK"),
    ],
)
async def test_a_head_without_a_body_is_sent_at_once(
    url: str, request_line: bytes, rest: bytes, first: bytes
) -> None:
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(request_line + b" HTTP/1.1\r\nhost: x\r\n" + rest + b"\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(first)
        if b"100" in first:
            writer.write(b"body")
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        elif rest:
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
