"""The HTTP edge of a service: request ids, admission, limits, errors, logs and metrics."""

import json
import logging
import random
import re
import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from prometheus_client import Counter, Histogram
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dozen_chassis import admission
from dozen_chassis.admission import Admission
from dozen_chassis.errors import BodyTooLarge, InvalidRequest, ServiceError, error_body
from dozen_chassis.logging import request_id
from dozen_chassis.postgres import as_service_error

log = logging.getLogger(__name__)

REQUESTS = Counter("dozen_http_requests", "HTTP requests served.", ["method", "route", "status"])
LATENCY = Histogram(
    "dozen_http_request_duration_seconds", "Time to the end of the response.", ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120),
)  # fmt: skip

DEFAULT_BODY_BYTES = 4 * 1024 * 1024

is_request_id = re.compile(r"[A-Za-z0-9_.:-]{1,128}").fullmatch
_draw = random.Random()  # seeded by the system, and asked without a system call
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})


def new_request_id() -> str:
    """Make a request id."""
    return f"req_{_draw.getrandbits(128):032x}"


def body_limit(path: str, limits: Sequence[tuple[str, int]], otherwise: int) -> int:
    """Give the limit in bytes of the first prefix that a path has."""
    return next((limit for prefix, limit in limits if path.startswith(prefix)), otherwise)


def admitted(request: Request) -> Admission:
    """Give the verified admission of a request."""
    found: Admission = request.scope["admission"]
    return found


Admitted = Annotated[Admission, Depends(admitted)]
"""Parameter of a route that is served only to requests admitted by the gateway."""


class RequestContext:
    """ASGI middleware: gives each request its id, admission, body limit, log line and metrics.

    Paths under `/v1/` need the gateway's admission when `admission_key` is given. Unless
    `takes_request_ids`, the `x-request-id` of a caller is replaced by one of ours.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        admission_key: bytes | None,
        max_body_bytes: int,
        body_limits: Sequence[tuple[str, int]] = (),
        takes_request_ids: bool = True,
    ) -> None:
        self._app = app
        self._admission_key = admission_key
        self._max_body_bytes = max_body_bytes
        self._body_limits = body_limits
        self._takes_request_ids = takes_request_ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        identifier = headers.get("x-request-id", "")
        if not self._takes_request_ids or not is_request_id(identifier):
            identifier = new_request_id()
        scope["request_id"] = identifier
        token = request_id.set(identifier)
        started = time.perf_counter()
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", identifier.encode())]
            await send(message)

        try:
            try:
                path = scope["path"]
                if (key := self._admission_key) is not None and path.startswith("/v1/"):
                    operation = f"{scope['method']} {path}"
                    scope["admission"] = admission.verify(headers, operation, key, time.time())
                await self._app(scope, self._limited(receive, headers, path), send_with_id)
            except ClientDisconnect:
                status = 499  # nobody is there to be answered
            except Exception as problem:
                error = as_service_error(problem)
                if not status:  # otherwise the response has begun, and the server cuts it
                    await send_error(error, scope, receive, send_with_id)
        finally:
            self._record(scope, status, time.perf_counter() - started)
            request_id.reset(token)

    def _limited(self, receive: Receive, headers: dict[str, str], path: str) -> Receive:
        limit = body_limit(path, self._body_limits, self._max_body_bytes)
        error = BodyTooLarge(f"The request body is larger than {limit} bytes.")
        declared = headers.get("content-length", "")
        too_large = declared.isdecimal() and int(declared) > limit
        received = 0

        async def limited() -> Message:
            nonlocal received
            if too_large:  # raised only here, where the body is asked for, so that all middleware sees it
                raise error
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise error
            return message

        return limited

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        if scope["path"] in _QUIET:
            return
        route = getattr(scope.get("route"), "path", None) or scope.get("route_name") or "unmatched"
        REQUESTS.labels(scope["method"], route, status).inc()
        LATENCY.labels(scope["method"], route).observe(seconds)
        facts = {"method": scope["method"], "path": scope["path"], "status": status}
        log.info("request", extra={**facts, "milliseconds": round(seconds * 1000, 2)})


async def send_error(error: ServiceError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a request with an error in OpenAI's form."""
    await JSONResponse(error.body(), error.http.status, error.headers)(scope, receive, send)


def _validation_error(error: RequestValidationError) -> ServiceError:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if part not in ("body", "query", "path", "header")]
    if first["type"] == "json_invalid":
        return InvalidRequest(f"The request body is not valid JSON: {first['ctx']['error']}.")
    param = ".".join(place) or None
    return InvalidRequest(f"{first['msg']}{f' (at {param})' if param else ''}.", param=param)


async def _on_service_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ServiceError)
    return JSONResponse(error.body(), error.http.status, error.headers)


async def _on_validation_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    return await _on_service_error(request, _validation_error(error))


async def _on_http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, ServiceError):  # FastAPI wraps what is raised while a body is read
        return await _on_service_error(request, error.__cause__)
    message = error.detail if isinstance(error.detail, str) else json.dumps(error.detail)
    code = None
    if error.status_code == 404 and message == "Not Found":
        message, code = f"Invalid URL ({request.method} {request.url.path}).", "unknown_url"
    elif error.status_code == 405:
        message, code = f"Not allowed to {request.method} on {request.url.path}.", "method_not_allowed"
    kind = "server_error" if error.status_code >= 500 else "invalid_request_error"
    return JSONResponse(error_body(message, kind, None, code), error.status_code, error.headers)


def create_http(
    title: str,
    routers: Sequence[APIRouter],
    *,
    plain_routes: Sequence[BaseRoute] = (),
    admission_key: bytes | None = None,
    max_body_bytes: int = DEFAULT_BODY_BYTES,
    body_limits: Sequence[tuple[str, int]] = (),
    takes_request_ids: bool = True,
    middleware: Sequence[Middleware] = (),
) -> FastAPI:
    """Build the ASGI app of a service.

    `plain_routes` are raw ASGI routes for hot paths, matched before the routers. `body_limits` are
    limits in bytes for path prefixes that need other than `max_body_bytes`.
    """
    handlers: dict[Any, Any] = {
        ServiceError: _on_service_error,
        RequestValidationError: _on_validation_error,
        HTTPException: _on_http_error,
    }
    app = FastAPI(
        title=title, docs_url=None, redoc_url=None, redirect_slashes=False, exception_handlers=handlers
    )
    app.router.routes.extend(plain_routes)
    for router in routers:
        app.include_router(router)
    for added in middleware:
        app.add_middleware(added.cls, *added.args, **added.kwargs)
    app.add_middleware(
        RequestContext,
        admission_key=admission_key,
        max_body_bytes=max_body_bytes,
        body_limits=body_limits,
        takes_request_ids=takes_request_ids,
    )
    # Last, so that its span is the outermost layer and every log line has a trace id.
    FastAPIInstrumentor.instrument_app(
        app, excluded_urls="healthz,readyz,metrics", exclude_spans=["receive", "send"]
    )
    return app
