"""The client of HTTP benchmarks: raw sockets in a process of its own.

It writes bytes that were made beforehand and reads no more of an answer than its length, so that one core
of it outruns one core of any server in Python: `bench.measures.decision_http` measures by how much.
"""

import asyncio
import random
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import uvloop

from bench.rounds import REST_CORE, in_fresh_process, on_core, percentile

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class UnexpectedAnswer(Exception):
    """The server did not answer as it was to."""


@dataclass(frozen=True, slots=True)
class Requests:
    """What to send over and over, to a port of this machine."""

    port: int
    contents: Sequence[bytes]
    expected: bytes
    """What every answer holds."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it."""

    per_second: float
    answers: int
    median_milliseconds: float
    p99_milliseconds: float


def load(requests: Requests, *, connections: int, seconds: float) -> Outcome:
    """Send requests for some time, each connection its next one once the last is answered."""
    return in_fresh_process(_load, requests, connections, seconds)


def post(path: str, body: bytes, headers: dict[str, str]) -> bytes:
    """Give the bytes of a request with a JSON body."""
    lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += [f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def _load(requests: Requests, connections: int, seconds: float) -> Outcome:
    with on_core(REST_CORE):
        return uvloop.run(_run(requests, connections, seconds))


async def _run(requests: Requests, connections: int, seconds: float) -> Outcome:
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    clients = [
        (
            await loop.create_connection(
                lambda: _Client(requests, began + seconds), "127.0.0.1", requests.port
            )
        )[1]
        for _ in range(connections)
    ]
    await asyncio.gather(*(client.ended for client in clients))
    taken = time.perf_counter() - began
    times = sorted(time for client in clients for time in client.times)
    return Outcome(
        per_second=len(times) / taken,
        answers=len(times),
        median_milliseconds=percentile(times, 0.5) * 1000,
        p99_milliseconds=percentile(times, 0.99) * 1000,
    )


class _Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, requests: Requests, until: float) -> None:
        self._requests = random.sample(requests.contents, len(requests.contents))
        self._expected = requests.expected
        self._until = until
        self._received = b""
        self._sent_at = 0.0
        self.times: list[float] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self._send()

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        head = received.find(b"\r\n\r\n")
        length = _LENGTH.search(received, 0, head + 2) if head >= 0 else None
        if length is None or len(received) < head + 4 + int(length[1]):
            self._received = received
            return
        self._received = b""
        now = time.perf_counter()
        self.times.append(now - self._sent_at)
        if self._expected not in received:
            self._end(UnexpectedAnswer(received.decode("utf-8", "replace")))
        elif now < self._until:
            self._send()
        else:
            self._end(None)

    def connection_lost(self, error: Exception | None) -> None:
        self._end(error or ConnectionResetError("the server closed the connection"))

    def _send(self) -> None:
        self._sent_at = time.perf_counter()
        self._transport.write(self._requests[len(self.times) % len(self._requests)])

    def _end(self, error: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_exception(error) if error else self.ended.set_result(None)
            self._transport.close()
