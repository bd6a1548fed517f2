"""The gRPC edge and its channels, with a service made up here that has every kind of call."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc.aio
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from opentelemetry import context, trace

from dozen_chassis.errors import DependencyUnavailable, ServiceError, Status
from dozen_chassis.grpc import GrpcService, RemoteError, open_channel, remote_errors, start_grpc
from dozen_chassis.logging import request_id
from dozen_chassis.signing import caller_token
from dozen_chassis.telemetry import trace_context

Context = grpc.aio.ServicerContext[Any, Any]
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
KEY = bytes(range(32))

NAME = "dozen.test.v1.EchoService"
METHODS = {"Say": (False, False), "Repeat": (False, True), "Join": (True, False), "Refuse": (False, False)}


class TooLoud(ServiceError):
    """Nobody can listen to this."""

    status = Status.RESOURCE_EXHAUSTED
    code = "too_loud"


@dataclass
class Echo:
    """Answers what it was told."""

    context: list[tuple[str | None, str]] = field(default_factory=list)
    refusals: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def Say(self, request: StringValue, _: Context) -> StringValue:  # noqa: N802
        """Answer, or fail in the way that the text says."""
        current = trace.get_current_span().get_span_context()
        self.context.append((request_id.get(), f"{current.trace_id:032x}"))
        match request.value:
            case "loud":
                raise TooLoud()
            case "broken":
                raise ZeroDivisionError("secret detail")
            case "forever":
                await self._forever()
        return request

    async def Repeat(self, request: StringValue, _: Context) -> AsyncIterator[StringValue]:  # noqa: N802
        """Answer twice, then fail in the way that the text says."""
        yield request
        yield request
        match request.value:
            case "loud":
                raise TooLoud()
            case "broken":
                raise ZeroDivisionError("secret detail")
            case "forever":
                await self._forever()

    async def Join(self, requests: AsyncIterator[StringValue], _: Context) -> StringValue:  # noqa: N802
        """Answer all at once."""
        said = [request.value async for request in requests]
        if "loud" in said:
            raise TooLoud()
        return StringValue(value=" ".join(said))

    async def Refuse(self, request: StringValue, _: Context) -> StringValue:  # noqa: N802
        """Be overloaded for the first two calls."""
        self.refusals += 1
        if self.refusals < 3:
            raise DependencyUnavailable()
        return request

    async def _forever(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.ended.set()


def add_to_server(echo: Echo, server: Any) -> None:
    handlers = {}
    for method, (streams_in, streams_out) in METHODS.items():
        kind = f"{'stream' if streams_in else 'unary'}_{'stream' if streams_out else 'unary'}"
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        handlers[method] = make(getattr(echo, method), StringValue.FromString, StringValue.SerializeToString)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))


def described() -> Any:
    """Give the descriptor of the file that a generator would have made."""
    file = descriptor_pb2.FileDescriptorProto(
        name="dozen/test/v1/echo_service.proto",
        package="dozen.test.v1",
        dependency=["google/protobuf/wrappers.proto"],
    )
    service = file.service.add(name="EchoService")
    for method, (streams_in, streams_out) in METHODS.items():
        service.method.add(
            name=method,
            input_type=".google.protobuf.StringValue",
            output_type=".google.protobuf.StringValue",
            client_streaming=streams_in,
            server_streaming=streams_out,
        )
    return descriptor_pool.Default().AddSerializedFile(file.SerializeToString())


FILE = described()


class EchoStub:
    """What a generator would have made."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        def method(make: Any, name: str) -> Any:
            return make(
                f"/{NAME}/{name}",
                request_serializer=StringValue.SerializeToString,
                response_deserializer=StringValue.FromString,
            )

        self.say = method(channel.unary_unary, "Say")
        self.repeat = method(channel.unary_stream, "Repeat")
        self.join = method(channel.stream_unary, "Join")
        self.refuse = method(channel.unary_unary, "Refuse")


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
async def address(echo: Echo) -> AsyncIterator[str]:
    server, port = await start_grpc("127.0.0.1", 0, KEY, [GrpcService(FILE, add_to_server, echo)])
    yield f"127.0.0.1:{port}"
    await server.stop(grace=None)


@pytest.fixture
async def stub(address: str) -> AsyncIterator[EchoStub]:
    async with open_channel(address, caller_token(KEY, "test")) as channel:
        yield EchoStub(channel)


def said(text: str) -> StringValue:
    return StringValue(value=text)


async def several(*texts: str) -> AsyncIterator[StringValue]:
    for text in texts:
        yield said(text)


async def collect(stub: EchoStub, text: str) -> list[str]:
    return [answer.value async for answer in stub.repeat(said(text))]


async def test_each_kind_of_call_is_answered(stub: EchoStub) -> None:
    assert (await stub.say(said("hello"))).value == "hello"
    assert await collect(stub, "hello") == ["hello", "hello"]
    assert (await stub.join(several("good", "morning"))).value == "good morning"


@pytest.mark.parametrize("token", ["", "test", "test.abc", caller_token(secrets.token_bytes(32), "test")])
async def test_a_caller_without_the_right_token_is_refused(address: str, echo: Echo, token: str) -> None:
    async with open_channel(address, token) as channel:
        stub = EchoStub(channel)
        for call in (
            lambda: stub.say(said("hello")),
            lambda: collect(stub, "hello"),
            lambda: stub.join(several("hello")),
        ):
            with pytest.raises(RemoteError) as refused, remote_errors():
                await call()
            assert (refused.value.status, refused.value.code) == (
                Status.UNAUTHENTICATED,
                "caller_not_trusted",
            )
    assert not echo.context


async def test_health_and_reflection_are_open_to_all(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        health: Any = health_pb2_grpc.HealthStub(channel)
        for name in ("", NAME):
            answer = await health.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

        async def question() -> AsyncIterator[Any]:
            yield reflection_pb2.ServerReflectionRequest(list_services="")

        reflection: Any = reflection_pb2_grpc.ServerReflectionStub(channel)  # type: ignore[arg-type]
        (listed,) = [answer async for answer in reflection.ServerReflectionInfo(question())]
        assert NAME in [service.name for service in listed.list_services_response.service]


async def test_an_error_arrives_as_it_was_raised(stub: EchoStub) -> None:
    for call in (
        lambda: stub.say(said("loud")),
        lambda: collect(stub, "loud"),
        lambda: stub.join(several("loud")),
    ):
        with pytest.raises(RemoteError) as caught, remote_errors():
            await call()
        assert (caught.value.status, caught.value.code) == (TooLoud.status, TooLoud.code)
        assert caught.value.message == "Nobody can listen to this."
        assert caught.value.http.status == 429


async def test_what_came_before_an_error_has_arrived(stub: EchoStub) -> None:
    answers = stub.repeat(said("loud"))
    assert [(await anext(aiter(answers))).value for _ in range(2)] == ["loud", "loud"]
    with pytest.raises(RemoteError, match="Nobody"), remote_errors():
        await anext(aiter(answers))


async def test_an_unknown_error_is_logged_once_and_keeps_its_details(
    stub: EchoStub, caplog: pytest.LogCaptureFixture
) -> None:
    for call in (lambda: stub.say(said("broken")), lambda: collect(stub, "broken")):
        caplog.clear()
        with pytest.raises(RemoteError) as caught, remote_errors():
            await call()
        assert (caught.value.status, caught.value.code) == (Status.INTERNAL, "internal_error")
        assert "secret detail" not in caught.value.message
        (logged,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert logged.exc_info


async def test_the_request_id_and_the_trace_go_along(stub: EchoStub, echo: Echo) -> None:
    identified = request_id.set("req_1")
    attached = context.attach(trace_context({"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}))
    try:
        await stub.say(said("hello"))
    finally:
        context.detach(attached)
        request_id.reset(identified)
    await stub.say(said("hello"))
    assert echo.context[0] == ("req_1", TRACE_ID)
    assert echo.context[1][0] is None
    assert echo.context[1][1] != TRACE_ID


async def test_a_service_that_is_overloaded_is_asked_again(stub: EchoStub, echo: Echo) -> None:
    assert (await stub.refuse(said("hello"))).value == "hello"
    assert echo.refusals == 3


async def test_a_service_that_is_down_is_a_dependency_unavailable() -> None:
    async with open_channel("127.0.0.1:9", caller_token(KEY, "test")) as channel:
        with pytest.raises(DependencyUnavailable), remote_errors():
            await EchoStub(channel).say(said("hello"))


async def test_a_deadline_ends_the_call_on_both_sides(stub: EchoStub, echo: Echo) -> None:
    with pytest.raises(DependencyUnavailable), remote_errors():
        await stub.say(said("forever"), timeout=0.2)
    await asyncio.wait_for(echo.ended.wait(), 5)


async def test_a_caller_that_leaves_ends_the_stream(
    stub: EchoStub, echo: Echo, caplog: pytest.LogCaptureFixture
) -> None:
    answers = stub.repeat(said("forever"))
    await anext(aiter(answers))
    answers.cancel()
    await asyncio.wait_for(echo.ended.wait(), 5)
    assert (await stub.say(said("hello"))).value == "hello"
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
