"""The few paths that are asked so often that they cannot afford the layers of all others."""

import time
from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from dozen_chassis.http import LATENCY, REQUESTS, send_error
from dozen_chassis.postgres import as_service_error


class HotPaths:
    """ASGI app that serves raw apps at exact paths itself, and leaves all else to another app.

    Requests there have metrics and errors in the usual form, but no span, log line, request id, admission
    or body limit.
    """

    def __init__(self, app: ASGIApp, paths: Mapping[str, ASGIApp]) -> None:
        self._app = app
        self._paths = paths
        self._answered = {path: REQUESTS.labels("POST", path, 200) for path in paths}
        self._latency = {path: LATENCY.labels("POST", path) for path in paths}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = scope.get("path", "")
        hot = self._paths.get(path)
        if hot is None or scope.get("method") != "POST":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        try:
            await hot(scope, receive, send)
            self._answered[path].inc()
        except Exception as problem:
            error = as_service_error(problem)
            REQUESTS.labels("POST", path, error.http.status).inc()
            await send_error(error, scope, receive, send)
        finally:
            self._latency[path].observe(time.perf_counter() - started)
