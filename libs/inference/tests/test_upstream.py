"""The client of inference servers: its errors, its time limits and its connections."""

import asyncio
import json
from typing import Any

import pytest

from dozen_chassis.errors import ServiceError, Status
from dozen_inference.upstream import (
    Upstream,
    UpstreamFailed,
    UpstreamNotReady,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
    upstream_error,
)
from dozen_local.ports import free_port

PATH = "/v1/chat/completions"


async def read(upstream: Upstream, seconds: float = 5) -> bytes:
    async with upstream.post(PATH, b"{}", {}, first_byte_seconds=seconds) as answer:
        return await answer.read()


async def test_an_answer_is_given_as_it_comes(upstream: Upstream, server: Any) -> None:
    server.chunks = [b"one", b"two"]
    server.allowed = asyncio.Semaphore(1)
    async with upstream.post(PATH, b'{"a":1}', {"x-request-id": "req_1"}, first_byte_seconds=5) as answer:
        chunks = answer.chunks()
        assert await anext(chunks) == b"one"
        server.allowed.release()
        assert await anext(chunks) == b"two"
        assert [chunk async for chunk in chunks] == []
    ((headers, body),) = server.asked
    assert body == {"a": 1}
    assert headers["x-request-id"] == "req_1"


async def test_nobody_there_is_unavailable() -> None:
    async with Upstream.open(
        f"http://127.0.0.1:{free_port()}", connect_seconds=5, idle_seconds=5
    ) as upstream:
        with pytest.raises(UpstreamUnavailable):
            await read(upstream)
        with pytest.raises(UpstreamUnavailable):
            await upstream.ping()


async def test_a_first_byte_that_does_not_come_is_a_timeout(upstream: Upstream, server: Any) -> None:
    server.chunks, server.allowed = [b"one"], asyncio.Semaphore(0)
    with pytest.raises(UpstreamTimeout):
        await read(upstream, seconds=0.05)
    async with asyncio.timeout(5):
        await server.left.wait()


async def test_a_pause_that_is_too_long_is_a_timeout(server: Any, server_url: str) -> None:
    server.chunks, server.ending = [b"one"], "hang"
    async with Upstream.open(server_url, connect_seconds=5, idle_seconds=0.05) as upstream:
        with pytest.raises(UpstreamTimeout):
            await read(upstream)
    async with asyncio.timeout(5):
        await server.left.wait()


async def test_an_answer_that_is_cut_is_a_failure(upstream: Upstream, server: Any) -> None:
    server.chunks, server.ending = [b"one"], "die"
    with pytest.raises(UpstreamFailed):
        await read(upstream)


async def test_leaving_early_closes_the_connection(upstream: Upstream, server: Any) -> None:
    server.chunks, server.ending = [b"one"], "hang"
    async with upstream.post(PATH, b"{}", {}, first_byte_seconds=5) as answer:
        await anext(answer.chunks())
    async with asyncio.timeout(5):
        await server.left.wait()


async def test_connections_are_kept(upstream: Upstream, server: Any) -> None:
    server.chunks = [b"one"]
    for _ in range(3):
        assert await read(upstream) == b"one"
    assert len(server.connections) == 1


async def test_a_server_that_is_not_well_does_not_answer_a_ping(upstream: Upstream, server: Any) -> None:
    await upstream.ping()
    server.status = 503
    with pytest.raises(UpstreamNotReady, match="503"):
        await upstream.ping()


async def test_a_refusal_is_raised_with_its_body(upstream: Upstream, server: Any) -> None:
    server.status, server.content_type = 400, "application/json"
    server.chunks = [b'{"error":{"code":400,"message":"no","type":"invalid_request_error"}}']
    with pytest.raises(UpstreamRefused, match="no"):
        await read(upstream)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        # llama.cpp
        (
            400,
            {"error": {"code": 400, "message": "Expected 'messages'", "type": "invalid_request_error"}},
            (400, "invalid_request_error", None, None),
        ),
        (
            400,
            {"error": {"code": 400, "message": "request (6031 tokens)", "type": "exceed_context_size_error"}},
            (400, "invalid_request_error", None, "context_length_exceeded"),
        ),
        (
            500,
            {"error": {"code": 500, "message": "Failed to parse messages: no role", "type": "server_error"}},
            (400, "invalid_request_error", None, None),
        ),
        # vLLM, now and before
        (
            404,
            {"error": {"message": "unknown", "type": "NotFoundError", "param": "model", "code": 404}},
            (404, "invalid_request_error", "model", None),
        ),
        (
            400,
            {"object": "error", "message": "This model's maximum context length is 9", "code": 400},
            (400, "invalid_request_error", None, "context_length_exceeded"),
        ),
        # OpenAI
        (
            429,
            {"error": {"message": "slow", "type": "requests", "param": None, "code": "rate_limit_exceeded"}},
            (429, "rate_limit_error", None, "rate_limit_exceeded"),
        ),
        (422, {"detail": "Unprocessable"}, (422, "invalid_request_error", None, None)),
        (400, {"error": "a text"}, (400, "invalid_request_error", None, None)),
        (
            400,
            {"error": {"message": "no", "param": 5, "code": True}},
            (400, "invalid_request_error", None, None),
        ),
        # ours to answer for
        (401, {"error": {"message": "key"}}, (502, "server_error", None, "upstream_error")),
        (500, {"error": {"message": "boom"}}, (502, "server_error", None, "upstream_error")),
        (503, {"error": {"message": "loading", "code": 503}}, (503, "server_error", None, "upstream_error")),
        (302, {}, (502, "server_error", None, "upstream_error")),
        (200, {"error": {"message": "boom"}}, (502, "server_error", None, "upstream_error")),
    ],
)
def test_errors_become_openai_s_object(
    status: int, body: Any, expected: tuple[int, str, str | None, str | None]
) -> None:
    error = upstream_error(status, json.dumps(body).encode())
    details = error.body()["error"]
    assert (error.http.status, details["type"], details["param"], details["code"]) == expected
    assert details["message"]


ENDLESS = b'{"error":' + b'{"error":' * 100_000


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"5",
        b'{"error":[]}',
        b'{"error":{"message":5}}',
        b'{"error":{"message":null}}',
        b'{"error":{"message":"\xff"}}',
        b'{"error":{"message":"\\ud800"}}',
        b"\xff\xfe",
        ENDLESS,
    ],
)
def test_an_error_in_no_known_form_still_has_a_message(body: bytes) -> None:
    error: ServiceError = upstream_error(400, body)
    assert error.status is Status.INVALID_ARGUMENT
    assert error.message == "The inference server refused the request."
    assert isinstance(upstream_error(500, body), UpstreamFailed)
    assert isinstance(upstream_error(200, body), UpstreamFailed)


def test_of_a_long_message_the_beginning_is_told() -> None:
    error = upstream_error(400, json.dumps({"error": {"message": "x" * 100_000}}).encode())
    assert error.message == "x" * 2000


async def test_what_is_at_a_path_is_read(upstream: Upstream, server: Any) -> None:
    server.pages["/metrics"] = b"vllm:num_requests_running 3\n"
    assert await upstream.get("/metrics") == server.pages["/metrics"]
    with pytest.raises(UpstreamNotReady, match="/nothing answers 404"):
        await upstream.get("/nothing")
    with pytest.raises(UpstreamTimeout):
        await upstream.get("/hangs", seconds=0.05)


async def test_an_answer_is_not_read_without_end(
    upstream: Upstream, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dozen_inference.upstream.MAX_ANSWER_BYTES", 10)
    server.chunks, server.ending = [b"12345", b"67890", b"1"], "hang"
    with pytest.raises(UpstreamFailed):
        await read(upstream)
    async with asyncio.timeout(5):
        await server.left.wait()
