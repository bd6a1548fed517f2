"""The inference server behind everything that is measured: `programs/upstream.c`."""

import json
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from bench.compiled import compiled
from bench.rounds import REST_CORE
from bench.servers import running
from dozen_local.ports import free_port
from dozen_local.processes import http_ok

FAST = "mock"
FAST_EVENTS = 34


def slow(milliseconds: int, tokens: int = 100) -> str:
    """Name the model of which a token comes every so many milliseconds."""
    return f"mock-slow-{milliseconds}-{tokens}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """A running one."""

    port: int
    pid: int

    @property
    def url(self) -> str:
        """Its base URL."""
        return f"http://127.0.0.1:{self.port}"

    def counts(self) -> Mapping[str, int]:
        """Give what it counts: `requests`, `streams`, `aborted` ones, and open `connections`."""
        with urllib.request.urlopen(f"{self.url}/stats", timeout=5) as answer:
            counts: dict[str, int] = json.load(answer)
            return counts


@contextmanager
def upstream() -> Iterator[Upstream]:
    """Run one for the block."""
    port = free_port()
    command = [str(compiled("upstream")), str(port)]
    with running("upstream", command, core=REST_CORE, is_ready=lambda: http_ok(port, "/health")) as pid:
        yield Upstream(port, pid)
