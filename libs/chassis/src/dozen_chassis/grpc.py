"""The gRPC edge of a service and its channels to others: identity, errors, traces, deadlines."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
import grpc.aio
from google.protobuf import any_pb2
from google.protobuf.descriptor import FileDescriptor
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from opentelemetry import context, trace
from opentelemetry.trace import SpanKind

from dozen_chassis.errors import CallerNotTrusted, DependencyUnavailable, ServiceError, Status
from dozen_chassis.logging import request_id
from dozen_chassis.postgres import as_service_error
from dozen_chassis.signing import verify_caller
from dozen_chassis.telemetry import current_trace_headers, trace_context, tracer

ERROR_DOMAIN = "dozen"
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
_OPEN_SERVICES = ("/grpc.health.", "/grpc.reflection.")

# Retries are gRPC's own, under its throttling: at most one retry for every ten calls that succeed.
_RETRIES = {
    "maxAttempts": 3, "initialBackoff": "0.05s", "maxBackoff": "1s", "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}  # fmt: skip
_SERVICE_CONFIG = json.dumps(
    {
        "methodConfig": [{"name": [{}], "retryPolicy": _RETRIES}],
        "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
    }
)

_GRPC_CODES = {code.value[0]: code for code in grpc.StatusCode}
_STATUSES = {status.value: status for status in Status}


@dataclass(frozen=True)
class GrpcService:
    """One gRPC service: the descriptor of its file, the generated `add_…_to_server` and the servicer."""

    file: FileDescriptor
    add: Callable[[Any, Any], None]
    servicer: object

    @property
    def name(self) -> str:
        """Full name of the only service in the file."""
        (service,) = self.file.services_by_name.values()
        return str(service.full_name)


class RemoteError(ServiceError):
    """Another service answered with an error."""

    def __init__(self, status: Status, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status = status  # type: ignore[misc]  # a fact of this one error, not of its class
        self.code = code  # type: ignore[misc]


class _EdgeInterceptor(grpc.aio.ServerInterceptor):
    """Checks the caller's token, continues the trace and renders errors for every method."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = await continuation(details)
        if handler is None or details.method.startswith(_OPEN_SERVICES):
            return handler
        answers = "stream" if handler.response_streaming else "unary"
        kind = f"{'stream' if handler.request_streaming else 'unary'}_{answers}"
        wrap = self._streaming if handler.response_streaming else self._unary
        make = getattr(grpc, f"{kind}_rpc_method_handler")
        wrapped = wrap(getattr(handler, kind), details.method)
        return make(wrapped, handler.request_deserializer, handler.response_serializer)

    def _unary(self, method: Callable[..., Awaitable[Any]], name: str) -> Callable[..., Awaitable[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext) -> Any:
            with self._call(name, context):
                try:
                    self._authenticate(context)
                    return await method(request, context)
                except Exception as error:
                    await _abort(context, error)

        return call

    def _streaming(
        self, method: Callable[..., AsyncIterator[Any]], name: str
    ) -> Callable[..., AsyncIterator[Any]]:
        async def call(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
            with self._call(name, context):
                try:
                    self._authenticate(context)
                    async for response in method(request, context):
                        yield response
                except Exception as error:
                    await _abort(context, error)

        return call

    def _authenticate(self, context: grpc.aio.ServicerContext) -> None:
        metadata = dict(context.invocation_metadata() or ())
        token = str(metadata.get("authorization", "")).removeprefix("Bearer ")
        if verify_caller(self._key, token) is None:
            raise CallerNotTrusted()

    @contextmanager
    def _call(self, name: str, call_context: grpc.aio.ServicerContext) -> Any:
        metadata = {k: v for k, v in call_context.invocation_metadata() or () if isinstance(v, str)}
        attached = context.attach(trace_context(metadata))
        identified = request_id.set(metadata.get("x-request-id"))
        span = tracer.start_span(name.lstrip("/"), kind=SpanKind.SERVER)
        try:
            with trace.use_span(span, end_on_exit=True):
                yield
        finally:
            request_id.reset(identified)
            context.detach(attached)


async def _abort(context: grpc.aio.ServicerContext, problem: Exception) -> NoReturn:
    if isinstance(problem, grpc.aio.AbortError):
        raise problem
    error = as_service_error(problem)
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.ErrorInfo(reason=error.code or "", domain=ERROR_DOMAIN))
    code = _GRPC_CODES[error.status.value]
    rich = status_pb2.Status(code=error.status.value, message=error.message, details=[detail])
    # AIP-193; the header is where gRPC keeps the rich status (grpc_status.rpc_status does the same).
    context.set_trailing_metadata((("grpc-status-details-bin", rich.SerializeToString()),))
    await context.abort(code, error.message)


async def start_grpc(
    host: str, port: int, key: bytes, services: Sequence[GrpcService]
) -> tuple[grpc.aio.Server, int]:
    """Start the gRPC server with health and reflection; return it with the port it listens on."""
    server = grpc.aio.server(
        interceptors=[_EdgeInterceptor(key)],
        options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0)],
    )
    for service in services:
        service.add(service.servicer, server)
    names = [service.name for service in services]
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for name in ["", *names]:
        await checks.set(name, health_pb2.HealthCheckResponse.SERVING)
    reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    bound = server.add_insecure_port(f"{host}:{port}")
    await server.start()
    return server, bound


class _Caller:
    """Adds the caller's token, request id and trace to the calls of one kind."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def intercept(self, continuation: Any, details: grpc.aio.ClientCallDetails, request: Any) -> Any:
        added = {"authorization": f"Bearer {self._token}", **current_trace_headers()}
        if identifier := request_id.get():
            added["x-request-id"] = identifier
        metadata = grpc.aio.Metadata(*(details.metadata or ()), *added.items())
        return await continuation(
            grpc.aio.ClientCallDetails(
                details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
            ),
            request,
        )


# A class for each kind of call: gRPC takes an interceptor for the first kind it finds it to be of.
class _UnaryUnaryCaller(_Caller, grpc.aio.UnaryUnaryClientInterceptor):
    intercept_unary_unary: Any = _Caller.intercept


class _UnaryStreamCaller(_Caller, grpc.aio.UnaryStreamClientInterceptor):
    intercept_unary_stream: Any = _Caller.intercept


class _StreamUnaryCaller(_Caller, grpc.aio.StreamUnaryClientInterceptor):
    intercept_stream_unary: Any = _Caller.intercept


def open_channel(address: str, token: str) -> grpc.aio.Channel:
    """Open a channel to another service, as the caller that the token names."""
    return grpc.aio.insecure_channel(
        address,
        interceptors=[_UnaryUnaryCaller(token), _UnaryStreamCaller(token), _StreamUnaryCaller(token)],
        options=[
            ("grpc.service_config", _SERVICE_CONFIG),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ],
    )


@contextmanager
def remote_errors() -> Any:
    """Turn the gRPC errors of a call into the `ServiceError` that the other side raised."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        code = None
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                rich = status_pb2.Status.FromString(value)
                info = error_details_pb2.ErrorInfo()
                if rich.details and rich.details[0].Unpack(info):
                    code = info.reason or None
        if code is None and error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise DependencyUnavailable() from error
        raise RemoteError(
            _STATUSES.get(error.code().value[0], Status.UNKNOWN), code, error.details() or ""
        ) from error
