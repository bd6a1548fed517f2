"""Probes of small real servers."""

import asyncio
import socket
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from dozen_models.clients import HealthClient, open_health_client
from dozen_models.domain.health import Answer, Outcome
from dozen_testing.http import serve

pytestmark = pytest.mark.integration


async def _answer(request: Request) -> Response:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536
            await asyncio.sleep(0)  # where it can be cancelled

    match request.path_params["how"]:
        case "well":
            return PlainTextResponse("ok")
        case "endlessly":
            return StreamingResponse(endless())
        case "elsewhere":
            return RedirectResponse("/well")
        case "badly":
            return PlainTextResponse("loading", 503)
    await asyncio.Event().wait()
    raise AssertionError


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """A server that answers as its path says, or never."""
    async with serve(Starlette(routes=[Route("/{how}", _answer)])) as url:
        yield url


@pytest.fixture
async def client() -> AsyncIterator[HealthClient]:
    """A client that is not in a hurry."""
    async with open_health_client(timedelta(seconds=30)) as client:
        yield client


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("well", Answer(Outcome.OK, "answered 200")),
        ("endlessly", Answer(Outcome.OK, "answered 200")),
        ("elsewhere", Answer(Outcome.STATUS, "answered 307")),
        ("badly", Answer(Outcome.STATUS, "answered 503")),
    ],
)
async def test_only_200_is_well(client: HealthClient, url: str, how: str, expected: Answer) -> None:
    async with asyncio.timeout(10):
        assert await client.ask(f"{url}/{how}") == expected


async def test_one_that_does_not_answer_is_left(url: str) -> None:
    async with open_health_client(timedelta(seconds=0.2)) as hurried:
        assert await hurried.ask(f"{url}/never") == Answer(Outcome.TIMEOUT, "no answer within 0.2 s")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_where_nobody_listens_the_connection_is_refused(client: HealthClient, host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert await client.ask(f"http://{host}:{port}/") == Answer(Outcome.REFUSED, "connection refused")


async def test_one_that_speaks_another_protocol_is_broken(client: HealthClient) -> None:
    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail ready\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        answer = await client.ask(f"http://127.0.0.1:{port}/")
    assert answer.outcome is Outcome.BROKEN
    assert len(answer.reason) <= 200
