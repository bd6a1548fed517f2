"""The edge, `POST /internal/decisions` and gRPC give the same answers."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import aiohttp
import grpc.aio
import pytest
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from dozen.gateway.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from dozen.gateway.v1.gateway_pb2 import RequestFacts
from dozen.gateway.v1.gateway_service_pb2 import DecideRequest
from dozen.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from dozen_chassis.grpc import GrpcService
from dozen_chassis.hot import HotPaths
from dozen_chassis.http import create_http
from dozen_chassis.postgres import Database
from dozen_chassis.signing import caller_token
from dozen_gateway.domain.state import Account, Snapshot, State
from dozen_gateway.edge.decisions import DecisionEndpoint
from dozen_gateway.edge.edge import Edge
from dozen_gateway.edge.forwarder import Forwarder, open_session
from dozen_gateway.edge.inference import PATHS, InferencePath, forwarding_client
from dozen_gateway.repository.keys import KeysRepository
from dozen_gateway.repository.limits import LimitsRepository
from dozen_gateway.service.account_limits import AccountLimitsService
from dozen_gateway.service.decisions import DecisionService
from dozen_gateway.service.keys import KeyService
from dozen_gateway.servicer import GatewayServicer
from dozen_testing.grpc import channel_to
from dozen_testing.http import serve

if TYPE_CHECKING:
    from dozen.gateway.v1.gateway_service_pb2_grpc import GatewayServiceAsyncStub  # in the stub file only

pytestmark = pytest.mark.integration

MASTER_KEY = b"master"
GRPC_KEY = b"grpc"


@dataclass(frozen=True)
class Question:
    """A request that is decided on."""

    method: str
    path: str
    model: str | None
    api_key: str


@dataclass(frozen=True)
class Verdict:
    """A decision, told by what every channel shows of it."""

    signed: dict[str, str] | None = None
    """The signed headers, without those that differ from request to request."""
    status: int | None = None
    error: dict[str, str | None] | None = None
    headers: dict[str, str] | None = None


class Channel(Protocol):
    """A way to a decision."""

    async def __call__(self, question: Question) -> Verdict:
        """Ask."""
        ...


def _signed(headers: dict[str, str]) -> dict[str, str]:
    varying = ("x-dozen-admission", "x-request-id")
    assert set(varying) <= set(headers)
    return {
        name: value for name, value in headers.items() if name.startswith("x-dozen-") and name not in varying
    }


def _told(headers: dict[str, str]) -> dict[str, str]:
    return {name: headers[name] for name in ("retry-after", "x-should-retry", "allow") if name in headers}


async def upstream(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the request's own headers."""
    if scope["type"] == "http":
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": json.dumps(headers).encode()})


@dataclass
class ByEdge:
    """Sends the request itself."""

    url: str
    client: aiohttp.ClientSession

    async def __call__(self, question: Question) -> Verdict:
        body = {"model": question.model} if question.model is not None else {}
        response = await self.client.request(
            question.method,
            f"{self.url}{question.path}",
            headers={"authorization": f"Bearer {question.api_key}"},
            json=body if question.method == "POST" else None,
        )
        answer = await response.json(content_type=None)
        if response.status == 200:
            return Verdict(signed=_signed(answer))
        told = _told({name.lower(): value for name, value in response.headers.items()})
        return Verdict(status=response.status, error=answer["error"], headers=told)


@dataclass
class ByHttp:
    """Asks as Kong does."""

    url: str
    client: aiohttp.ClientSession

    async def __call__(self, question: Question) -> Verdict:
        facts = {"method": question.method, "path": question.path, "model": question.model}
        response = await self.client.post(
            f"{self.url}/internal/decisions",
            json={"facts": facts, "api_key": question.api_key},
            headers={"authorization": f"Bearer {caller_token(GRPC_KEY, 'kong')}"},
        )
        assert response.status == 200
        answer = await response.json()
        if "admitted" in answer:
            assert answer["admitted"]["address"].startswith("http://127.0.0.1:")
            return Verdict(signed=_signed(answer["admitted"]["headers"]))
        rejection = answer["rejection"]
        return Verdict(
            status=rejection["http_status"],
            error=rejection["body"]["error"],
            headers=_told(rejection["headers"]),
        )


@dataclass
class ByGrpc:
    """Asks as a service does."""

    stub: "GatewayServiceAsyncStub"

    async def __call__(self, question: Question) -> Verdict:
        facts = RequestFacts(method=question.method, path=question.path, model=question.model or "")
        answer = await self.stub.Decide(DecideRequest(facts=facts, api_key=question.api_key))
        if answer.HasField("admitted"):
            return Verdict(signed=_signed(dict(answer.admitted.admission.headers)))
        rejection = answer.rejection
        error = {
            "message": rejection.message,
            "type": rejection.type,
            "param": rejection.param or None,
            "code": rejection.code,
        }
        return Verdict(status=rejection.http_status, error=error, headers=_told(dict(rejection.headers)))


@dataclass
class Gateway:
    """A gateway that can be asked in three ways."""

    state: State
    channels: dict[str, Channel]
    url: str
    client: aiohttp.ClientSession


@pytest.fixture
async def gateway(
    known: Callable[[str], Snapshot],
    decisions_on: Callable[[State, str, bytes], DecisionService],
    database: Database,
) -> AsyncIterator[Gateway]:
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serve(upstream))
        state = State()
        state.learn(known(address))
        decisions = decisions_on(state, address, MASTER_KEY)
        forwarder = Forwarder(await stack.enter_async_context(open_session()))
        edge = Middleware(Edge, decisions=decisions, forwarder=forwarder, admission_key=b"own")
        client = await stack.enter_async_context(forwarding_client())
        hot: dict[str, ASGIApp] = {DecisionEndpoint.PATH: DecisionEndpoint(decisions, GRPC_KEY)}
        hot |= {path: InferencePath(path, decisions, client, answer_seconds=30) for path in PATHS}
        app = HotPaths(create_http("gateway", [], middleware=[edge], takes_request_ids=False), hot)
        url = await stack.enter_async_context(serve(app))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        keys = KeyService(KeysRepository(database), state, b"server key")
        servicer = GatewayServicer(decisions, keys, AccountLimitsService(LimitsRepository(database)))
        service = GrpcService(
            gateway_service_pb2.DESCRIPTOR,
            gateway_service_pb2_grpc.add_GatewayServiceServicer_to_server,
            servicer,
        )
        channel = await stack.enter_async_context(channel_to(service))
        channels: dict[str, Channel] = {
            "edge": ByEdge(url, session),
            "http": ByHttp(url, session),
            "grpc": ByGrpc(GatewayServiceStub(channel)),
        }
        await stack.enter_async_context(asyncio.timeout(30))
        yield Gateway(state, channels, url, session)


CHAT = ("POST", "/v1/chat/completions")
ADMITTED = {"x-dozen-account": "acme", "x-dozen-key": "key1"}


@pytest.mark.parametrize("channel", ["edge", "http", "grpc"])
@pytest.mark.parametrize(
    ("method", "path", "model", "signed"),
    [
        (
            *CHAT,
            "smol",
            {
                "x-dozen-model": "smol",
                "x-dozen-deployments": "smol-chat",
                "x-dozen-price": "price-smol",
                "x-dozen-reservation": "lease_acme",
                "x-dozen-max-tokens": "2048",
                "x-dozen-uncapped": "1",
            },
        ),
        ("GET", "/v1/models/acme/smol", None, {}),
        ("DELETE", "/v1/files/file-1", None, {}),
    ],
)
async def test_the_same_headers_are_signed(
    gateway: Gateway,
    api_key: str,
    channel: str,
    method: str,
    path: str,
    model: str | None,
    signed: dict[str, str],
) -> None:
    verdict = await gateway.channels[channel](Question(method, path, model, api_key))
    assert verdict == Verdict(signed=ADMITTED | {"x-dozen-operation": f"{method} {path}"} | signed)


@pytest.mark.parametrize(
    ("question", "status", "code"),
    [
        (Question("GET", "/v1/nothing", None, "any"), 404, "unknown_url"),
        (Question("PATCH", "/v1/jobs", None, "any"), 405, "method_not_allowed"),
        (Question(*CHAT, "smol", ""), 401, "invalid_api_key"),
        (Question(*CHAT, "smol", "dz-acme-key1-wrong"), 401, "invalid_api_key"),
        (Question(*CHAT, None, "dz-acme-key1-5ecret"), 400, "missing_required_parameter"),
        (Question(*CHAT, "none", "dz-acme-key1-5ecret"), 404, "model_not_found"),
        (Question(*CHAT, "hibari", "dz-acme-key1-5ecret"), 404, "model_not_found"),
    ],
)
async def test_the_same_is_refused_with_the_same_words(
    gateway: Gateway, question: Question, status: int, code: str
) -> None:
    verdicts = [await channel(question) for channel in gateway.channels.values()]
    assert verdicts[0] == verdicts[1] == verdicts[2]
    assert verdicts[0].status == status
    assert verdicts[0].error is not None
    assert verdicts[0].error["code"] == code


@pytest.mark.parametrize("channel", ["edge", "http", "grpc"])
async def test_an_account_without_credits_and_a_model_without_health_are_refused_everywhere(
    gateway: Gateway, api_key: str, channel: str
) -> None:
    ask, question = gateway.channels[channel], Question(*CHAT, "smol", api_key)
    gateway.state.learn(Snapshot(usable={"smol-chat": False}))
    verdict = await ask(question)
    assert verdict.status == 503
    assert verdict.headers is not None
    assert 2 <= int(verdict.headers.pop("retry-after")) <= 8
    assert verdict.headers == {"x-should-retry": "true"}
    gateway.state.learn(Snapshot(accounts={"acme": Account(0, 2)}, usable={"smol-chat": True}))
    verdict = await ask(question)
    assert (verdict.status, verdict.headers) == (429, {"x-should-retry": "false"})


async def test_who_asks_by_http_must_be_one_of_us(gateway: Gateway, api_key: str) -> None:
    question = {"facts": {"method": "GET", "path": "/v1/jobs"}, "api_key": api_key}
    for token in ("", "kong.forged", caller_token(b"another", "kong"), "kong.\u00e9"):
        response = await gateway.client.post(
            f"{gateway.url}/internal/decisions", json=question, headers={"authorization": f"Bearer {token}"}
        )
        assert response.status == 401
        assert (await response.json())["error"]["code"] == "caller_not_trusted"


@pytest.mark.parametrize("body", ["", "{", "[]", "{}", '{"facts": {"method": 1, "path": "/"}}'])
async def test_what_is_no_question_is_refused(gateway: Gateway, body: str) -> None:
    headers = {"authorization": f"Bearer {caller_token(GRPC_KEY, 'kong')}"}
    response = await gateway.client.post(f"{gateway.url}/internal/decisions", data=body, headers=headers)
    assert response.status == 400
    assert (await response.json())["error"]["code"] == "invalid_request"


async def test_a_service_acts_for_a_key_under_an_id_of_its_own(gateway: Gateway) -> None:
    grpc_channel = gateway.channels["grpc"]
    assert isinstance(grpc_channel, ByGrpc)
    facts = RequestFacts(method="POST", path="/v1/chat/completions", model="smol")
    request = DecideRequest(facts=facts, key_id="key1", request_id="req_mine")
    request.time_to_live.FromSeconds(48 * 3600)
    headers = dict((await grpc_channel.stub.Decide(request)).admitted.admission.headers)
    assert headers["x-request-id"] == "req_mine"
    expires_at = int(headers["x-dozen-admission"].partition(".")[0])
    assert 23 * 3600 < expires_at - time.time() <= 24 * 3600
    request.request_id = "not an id"
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await grpc_channel.stub.Decide(request)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
