"""The HTTP edge, over real connections."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Form, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from dozen_chassis.errors import ServiceError, Status
from dozen_chassis.http import REQUESTS, Admitted, create_http
from dozen_chassis.logging import request_id
from dozen_testing.http import Signer, serve

LIMIT = 1000


class Closed(ServiceError):
    """The shop is closed."""

    status = Status.UNAVAILABLE
    code = "closed"


class Order(BaseModel):
    """The body of an order."""

    name: str = Field(max_length=5)
    sizes: list[int] = []


def router() -> APIRouter:
    routes = APIRouter()

    @routes.post("/v1/orders")
    async def order(body: Order, admission: Admitted) -> dict[str, str | None]:
        return {"account": admission.account, "name": body.name, "request_id": request_id.get()}

    @routes.get("/orders/{number}")
    async def show(number: int) -> int:
        return number

    @routes.post("/bytes")
    @routes.post("/large/bytes")
    async def count(request: Request) -> int:
        return len(await request.body())

    @routes.post("/form")
    async def form(name: Annotated[str, Form()]) -> int:
        return len(name)

    @routes.get("/closed")
    async def closed() -> None:
        raise Closed(headers={"retry-after": "7"})

    @routes.get("/broken")
    async def broken() -> None:
        raise ZeroDivisionError("secret detail")

    @routes.get("/streams/{error}")
    async def stream(error: str) -> StreamingResponse:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"first"
            raise Closed() if error == "known" else ZeroDivisionError()

        return StreamingResponse(pieces())

    return routes


@pytest.fixture
async def client(signer: Signer) -> AsyncIterator[httpx.AsyncClient]:
    app = create_http(
        "shop",
        [router()],
        plain_routes=[Route("/plain", lambda _: PlainTextResponse(request_id.get() or ""))],
        admission_key=signer.key,
        max_body_bytes=LIMIT,
        body_limits=[("/large/", 5 * LIMIT)],
    )
    async with serve(app) as url, httpx.AsyncClient(base_url=url) as client:
        yield client


def error_of(answer: httpx.Response) -> tuple[int, str, str | None, str | None]:
    """Give the status, type, param and code of an error in OpenAI's form."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["type"], error["param"], error["code"]


async def test_an_admitted_request_is_served_under_the_gateways_id(
    client: httpx.AsyncClient, signer: Signer
) -> None:
    headers = signer.headers("POST /v1/orders", request_id="req_1")
    answer = await client.post("/v1/orders", json={"name": "tea"}, headers=headers)
    assert answer.json() == {"account": "acme", "name": "tea", "request_id": "req_1"}
    assert answer.headers.get_list("x-request-id") == ["req_1"]


async def test_a_request_that_nobody_admitted_is_refused(client: httpx.AsyncClient, signer: Signer) -> None:
    refused = (401, "invalid_request_error", None, "not_admitted")
    assert error_of(await client.post("/v1/orders", json={"name": "tea"})) == refused
    other = signer.headers("POST /v1/refunds")
    assert error_of(await client.post("/v1/orders", json={"name": "tea"}, headers=other)) == refused
    late = signer.headers("POST /v1/orders", expires_in=-5)
    assert error_of(await client.post("/v1/orders", json={"name": "tea"}, headers=late)) == refused
    assert error_of(await client.get("/v1/unknown")) == refused


async def test_a_request_has_an_id_of_its_own_unless_it_brings_a_proper_one(
    client: httpx.AsyncClient,
) -> None:
    made = {(await client.get("/orders/1")).headers["x-request-id"] for _ in range(2)}
    assert len(made) == 2
    assert all(name.startswith("req_") for name in made)
    for given, kept in (("abc-1.2:3_x", True), ("two words", False), ("x" * 129, False), ("é", False)):
        answer = await client.get("/orders/1", headers={b"x-request-id": given.encode("latin-1")})
        assert (answer.headers["x-request-id"] == given) == kept


async def test_an_edge_does_not_take_ids_from_clients() -> None:
    app = create_http("edge", [router()], takes_request_ids=False)
    async with serve(app) as url, httpx.AsyncClient(base_url=url) as client:
        answer = await client.get("/orders/1", headers={"x-request-id": "chosen"})
    assert answer.headers["x-request-id"].startswith("req_")


async def test_a_body_beyond_the_limit_is_refused_by_what_it_declares(client: httpx.AsyncClient) -> None:
    assert (await client.post("/bytes", content=bytes(LIMIT))).json() == LIMIT
    refused = (413, "invalid_request_error", None, "request_too_large")
    assert error_of(await client.post("/bytes", content=bytes(LIMIT + 1))) == refused


@pytest.mark.parametrize(
    ("path", "kind"), [("/bytes", "text/plain"), ("/form", "application/x-www-form-urlencoded")]
)
async def test_a_body_beyond_the_limit_is_refused_where_it_declares_nothing(
    client: httpx.AsyncClient, path: str, kind: str
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"name="
        for _ in range(3):
            yield b"x" * (LIMIT // 2)

    answer = await client.post(path, content=pieces(), headers={"content-type": kind})
    assert error_of(answer) == (413, "invalid_request_error", None, "request_too_large")


async def test_a_path_can_have_a_limit_of_its_own(client: httpx.AsyncClient) -> None:
    assert (await client.post("/large/bytes", content=bytes(5 * LIMIT))).json() == 5 * LIMIT
    assert (await client.post("/large/bytes", content=bytes(5 * LIMIT + 1))).status_code == 413


@pytest.mark.parametrize(
    ("body", "param", "message"),
    [
        (b"{", None, "not valid JSON"),
        (b"[]", None, "valid dictionary"),
        (b"{}", "name", "Field required"),
        (b'{"name": "coffee"}', "name", "at most 5 characters"),
        (b'{"name": "tea", "sizes": [1, "large"]}', "sizes.1", "valid integer"),
    ],
)
async def test_a_body_that_is_not_valid_is_told_where(
    client: httpx.AsyncClient, signer: Signer, body: bytes, param: str | None, message: str
) -> None:
    headers = {"content-type": "application/json", **signer.headers("POST /v1/orders")}
    answer = await client.post("/v1/orders", content=body, headers=headers)
    assert error_of(answer) == (400, "invalid_request_error", param, "invalid_request")
    assert message in answer.json()["error"]["message"]


async def test_a_url_that_does_not_exist_is_an_error_in_openais_form(client: httpx.AsyncClient) -> None:
    assert error_of(await client.get("/nowhere")) == (404, "invalid_request_error", None, "unknown_url")
    assert error_of(await client.get("/closed/")) == (404, "invalid_request_error", None, "unknown_url")
    assert error_of(await client.delete("/closed")) == (
        405,
        "invalid_request_error",
        None,
        "method_not_allowed",
    )


async def test_a_known_error_keeps_its_code_and_headers(client: httpx.AsyncClient) -> None:
    answer = await client.get("/closed")
    assert error_of(answer) == (503, "server_error", None, "closed")
    assert answer.headers["retry-after"] == "7"
    assert answer.json()["error"]["message"] == "The shop is closed."


async def test_an_unknown_error_is_logged_once_and_keeps_its_details(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await client.get("/broken")
    assert error_of(answer) == (500, "server_error", None, "internal_error")
    assert "secret detail" not in answer.text
    (logged,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert logged.exc_info
    assert "secret detail" in str(logged.exc_info[1])


@pytest.mark.parametrize("error", ["known", "unknown"])
async def test_an_error_after_the_first_byte_cuts_the_response(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture, error: str
) -> None:
    async with client.stream("GET", f"/streams/{error}") as answer:
        assert answer.status_code == 200
        pieces = answer.aiter_raw()
        assert await anext(pieces) == b"first"
        with pytest.raises(httpx.RemoteProtocolError):
            await anext(pieces)
    assert [record.message for record in caplog.records if record.exc_info] == ["unhandled error"]


async def test_plain_routes_have_ids_too(client: httpx.AsyncClient) -> None:
    answer = await client.get("/plain", headers={"x-request-id": "req_plain"})
    assert (answer.text, answer.headers["x-request-id"]) == ("req_plain", "req_plain")


async def test_metrics_know_routes_and_not_paths(client: httpx.AsyncClient) -> None:
    for number in range(3):
        await client.get(f"/orders/{number}")
        await client.get(f"/made-up-{number}")
    counted = {
        (sample.labels["route"], sample.labels["status"]): sample.value
        for metric in REQUESTS.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }
    assert counted["/orders/{number}", "200"] >= 3
    assert counted["unmatched", "404"] >= 3
    assert not any("made-up" in route for route, _ in counted)


async def test_a_request_is_logged_with_its_outcome(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "dozen_chassis.http")
    await client.get("/orders/7?key=secret")
    (line,) = [record for record in caplog.records if record.message == "request"]
    facts = vars(line)
    assert (facts["method"], facts["path"], facts["status"]) == ("GET", "/orders/7", 200)
    assert facts["milliseconds"] > 0
    assert "secret" not in str(facts)


async def test_a_client_that_leaves_while_it_sends_breaks_nothing(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    host, port = client.base_url.host, client.base_url.port
    _, writer = await asyncio.open_connection(host, port)
    writer.write(b"POST /bytes HTTP/1.1\r\nhost: shop\r\ncontent-length: 10\r\n\r\nfive!")
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await client.get("/orders/1")).status_code == 200
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
