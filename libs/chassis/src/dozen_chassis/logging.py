"""JSON logs on standard error, each line with the request and the trace it belongs to."""

import asyncio
import json
import logging
import sys
import time
from contextvars import ContextVar

from opentelemetry import trace
from pythonjsonlogger.json import JsonFormatter

_BATCH_SECONDS = 0.1

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request, message or call that is being served."""


class _ContextFilter(logging.Filter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def filter(self, record: logging.LogRecord) -> bool:
        record.service = self._service
        record.request_id = getattr(record, "request_id", None) or request_id.get()
        vars(record).update(_span())
        return True


def configure_logging(service: str, level: str) -> None:
    """Send all logs of this process to standard error as JSON, one object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_ContextFilter(service))
    handler.setFormatter(
        JsonFormatter(
            "%(asctime)s %(levelname)s %(name)s %(message)s",
            rename_fields={"asctime": "time", "levelname": "level", "name": "logger"},
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for chatty in ("asyncio", "nats", "grpc", "aiohttp", "uvicorn.error"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))


class RequestLog:
    """Writes the line of each hot request as all others are, but in batches and for a microsecond or two."""

    def __init__(self, service: str) -> None:
        self._lines: list[str] = []
        self._second, self._written = 0, ""
        self._form = (
            '{{"time":"{},{:03}","level":"INFO","logger":"dozen_chassis.http","message":"request",'
            f'"service":"{service}","method":"POST","path":"{{}}","status":{{}},"milliseconds":{{:.2f}},'
            '"request_id":"{}","trace_id":%s,"span_id":%s}}\n'
        )
        self._plain = (self._form % ("null", "null")).format

    def put(self, request: str, path: str, status: int, seconds: float, *, is_traced: bool = False) -> None:
        """Write a line within a fraction of a second; nothing in its facts needs quoting."""
        second, rest = divmod(time.time_ns(), 10**9)
        if second != self._second:
            self._second, self._written = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        if not self._lines:
            asyncio.get_running_loop().call_later(_BATCH_SECONDS, self.flush)
        form = (self._form % tuple(map(json.dumps, _span().values()))).format if is_traced else self._plain
        self._lines.append(form(self._written, rest // 10**6, path, status, seconds * 1000, request))

    def flush(self) -> None:
        """Write what waits."""
        if self._lines:
            sys.stderr.write("".join(self._lines))
            self._lines.clear()


def _span() -> dict[str, str | None]:
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {"trace_id": None, "span_id": None}
    return {"trace_id": f"{context.trace_id:032x}", "span_id": f"{context.span_id:016x}"}
