"""The gateway's client against a gateway on a real port."""

import asyncio
from datetime import timedelta

import grpc.aio
import pytest

from dozen.gateway.v1 import gateway_service_pb2
from dozen.gateway.v1.gateway_pb2 import Admission, Rejection
from dozen.gateway.v1.gateway_service_pb2 import (
    Admitted,
    DecideRequest,
    DecideResponse,
    ReportOutcomesRequest,
    ReportOutcomesResponse,
    RequestOutcome,
)
from dozen.gateway.v1.gateway_service_pb2_grpc import (
    GatewayServiceServicer,
    add_GatewayServiceServicer_to_server,
)
from dozen_chassis.errors import DependencyUnavailable, Status
from dozen_chassis.grpc import GrpcService, open_channel, start_grpc
from dozen_jobs.clients import GatewayClient
from dozen_jobs.domain.submissions import Facts
from dozen_jobs.errors.refusals import SubmissionRefused
from dozen_local.ports import free_port
from dozen_testing.grpc import channel_to

WANTED = Facts("POST", "/v1/chat/completions", 17, "m", 5, 2)
DAY = timedelta(hours=24)


class FakeGateway(GatewayServiceServicer):
    """Answers as it is told to; without an answer it breaks, or hangs."""

    def __init__(self, answer: DecideResponse | None = None, *, hangs: bool = False) -> None:
        self.answer = answer
        self.hangs = hangs
        self.asked: list[DecideRequest] = []
        self.told: list[RequestOutcome] = []

    async def ReportOutcomes(  # noqa: N802
        self,
        request: ReportOutcomesRequest,
        context: grpc.aio.ServicerContext[ReportOutcomesRequest, ReportOutcomesResponse],
    ) -> ReportOutcomesResponse:
        if self.answer is None:
            raise RuntimeError("broken")
        self.told += request.outcomes
        return ReportOutcomesResponse()

    async def Decide(  # noqa: N802
        self, request: DecideRequest, context: grpc.aio.ServicerContext[DecideRequest, DecideResponse]
    ) -> DecideResponse:
        self.asked.append(request)
        if self.hangs:
            await asyncio.Event().wait()
        if self.answer is None:
            raise RuntimeError("broken")
        return self.answer


def gateway_that(answer: DecideResponse | None = None, *, hangs: bool = False) -> FakeGateway:
    return FakeGateway(answer, hangs=hangs)  # type: ignore[abstract]  # nobody calls the other methods


def served(gateway: FakeGateway) -> GrpcService:
    return GrpcService(gateway_service_pb2.DESCRIPTOR, add_GatewayServiceServicer_to_server, gateway)


async def test_the_gateway_is_asked_once_with_all_facts_and_its_headers_are_passed_on() -> None:
    headers = {"x-dozen-account": "acme", "x-dozen-admission": "1.signature"}
    gateway = gateway_that(DecideResponse(admitted=Admitted(admission=Admission(headers=headers))))
    async with channel_to(served(gateway)) as channel:
        assert dict(await GatewayClient(channel).admit("key1", "req_1", WANTED, DAY)) == headers
    (asked,) = gateway.asked
    assert (asked.WhichOneof("credential"), asked.key_id, asked.request_id) == ("key_id", "key1", "req_1")
    assert asked.time_to_live.ToTimedelta() == DAY
    facts = asked.facts
    assert (facts.method, facts.path, facts.body_bytes) == ("POST", "/v1/chat/completions", 17)
    assert (facts.model, facts.stream, facts.max_tokens, facts.choices) == ("m", False, 5, 2)


async def test_what_the_client_does_not_say_is_left_to_the_gateway() -> None:
    gateway = gateway_that(DecideResponse(admitted=Admitted()))
    async with channel_to(served(gateway)) as channel:
        await GatewayClient(channel).admit("key1", "req_1", Facts("POST", "/", 0, "m", None, None), DAY)
    assert not gateway.asked[0].facts.HasField("max_tokens")
    assert not gateway.asked[0].facts.HasField("choices")


@pytest.mark.parametrize(
    ("http_status", "status"),
    [
        (400, Status.INVALID_ARGUMENT),
        (401, Status.UNAUTHENTICATED),
        (404, Status.NOT_FOUND),
        (413, Status.FAILED_PRECONDITION),
        (429, Status.RESOURCE_EXHAUSTED),
        (503, Status.UNAVAILABLE),
    ],
)
async def test_a_rejection_is_passed_on_as_it_is(http_status: int, status: Status) -> None:
    rejection = Rejection(
        http_status=http_status,
        type="insufficient_quota",
        code="insufficient_quota",
        message="You have no credits.",
        headers={"x-should-retry": "false"},
    )
    async with channel_to(served(gateway_that(DecideResponse(rejection=rejection)))) as channel:
        with pytest.raises(SubmissionRefused) as caught:
            await GatewayClient(channel).admit("key1", "req_1", WANTED, DAY)
    error = caught.value
    assert (error.http.status, error.status) == (http_status, status)
    assert error.headers == {"x-should-retry": "false"}
    assert error.body() == {
        "error": {
            "message": "You have no credits.",
            "type": "insufficient_quota",
            "param": None,
            "code": "insufficient_quota",
        }
    }


async def test_a_gateway_that_breaks_or_hangs_is_unavailable() -> None:
    async with channel_to(served(gateway_that())) as channel:
        with pytest.raises(DependencyUnavailable):
            await GatewayClient(channel).admit("key1", "req_1", WANTED, DAY)
    async with channel_to(served(gateway_that(hangs=True))) as channel:
        with pytest.raises(DependencyUnavailable):
            await GatewayClient(channel, deadline=0.1).admit("key1", "req_1", WANTED, DAY)


async def test_without_a_gateway_it_is_unavailable() -> None:
    async with open_channel(f"127.0.0.1:{free_port()}", "jobs.token") as channel:
        with pytest.raises(DependencyUnavailable):
            await GatewayClient(channel).admit("key1", "req_1", WANTED, DAY)


async def test_a_gateway_that_does_not_trust_this_service_is_not_the_clients_fault() -> None:
    gateway = gateway_that(DecideResponse(admitted=Admitted()))
    server, port = await start_grpc("127.0.0.1", 0, b"key", [served(gateway)])
    async with open_channel(f"127.0.0.1:{port}", "jobs.forged") as channel:
        with pytest.raises(DependencyUnavailable):
            await GatewayClient(channel).admit("key1", "req_1", WANTED, DAY)
    await server.stop(grace=None)
    assert not gateway.asked


async def test_an_admission_is_withdrawn_and_nobody_minds_where_the_gateway_is_broken() -> None:
    gateway = gateway_that(DecideResponse())
    async with channel_to(served(gateway)) as channel:
        await GatewayClient(channel).withdraw("req_1")
    assert gateway.told == [RequestOutcome(request_id="req_1", unsent=True)]
    async with channel_to(served(gateway_that())) as channel:
        await GatewayClient(channel).withdraw("req_1")
