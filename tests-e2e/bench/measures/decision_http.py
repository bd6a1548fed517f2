"""The decision over HTTP/1.1, as Kong asks for it, beside a trivial answer from the same server."""

import asyncio
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from random import Random

from bench.figures import Effort, Figure
from bench.gateway import CHAT, KEYS, MODELS, PLENTY, fill_database, model_id
from bench.load import Outcome, Requests, UnexpectedAnswer, load, post
from bench.rounds import REST_CORE, cpu_seconds, in_turns, middle
from bench.servers import databases_and_nats, program, start
from dozen_chassis.postgres import Database
from dozen_local.bootstrap import OPERATOR
from dozen_local.environment import database_dsn
from dozen_local.platform import Platform
from dozen_local.ports import free_port
from journey import Operator

_CONNECTIONS = 32
_ACCOUNTS = 32
_REQUESTS = 512
"""Different ones, each under an id of its own: asked again, it takes the place of its earlier hold."""


@dataclass(frozen=True)
class _Round:
    outcome: Outcome
    cpu_seconds: float

    @property
    def cpu_microseconds(self) -> float:
        return self.cpu_seconds / self.outcome.answers * 1e6


def measure(effort: Effort) -> Sequence[Figure]:
    """Load the gateway's process, a trivial server, and one that does not even read what it gets."""
    keys, plain_port, bare_port = effort.of(KEYS), free_port(), free_port()
    with (
        databases_and_nats(["gateway", "credits"]) as platform,
        program(platform, "bench.plain", f"--port={plain_port}", port=plain_port) as plain,
        program(platform, "bench.plain", f"--port={bare_port}", "--bare", port=bare_port) as bare,
    ):
        asyncio.run(_fill(platform, keys))
        start(platform.processes["credits"], core=REST_CORE)
        gateway = start(platform.processes["gateway"])
        decisions = asyncio.run(_decisions(platform))
        trivial = [post("/", b"x" * len(decisions[0]), {})]
        variants = {
            "gateway": (gateway, Requests(platform.layout.http_port("gateway"), decisions, b'{"admitted"')),
            "plain": (start(plain), Requests(plain_port, trivial, b'{"plain"')),
            "bare": (start(bare), Requests(bare_port, trivial, b'{"plain"')),
        }
        _until_admitted(variants["gateway"][1])
        rounds = in_turns(
            effort.rounds,
            {name: partial(_round, *variant, effort.seconds) for name, variant in variants.items()},
        )
    ours, theirs = rounds["gateway"], rounds["plain"]
    rate, plain_rate, client_rate = (
        middle(rounds[name], lambda one: one.outcome.per_second) for name in variants
    )
    return [
        Figure(
            "decision_http.per_second", rate, at_least=20_000,
            note=f"{_CONNECTIONS} connections, {keys:,} keys; the server on one core",
        ),
        Figure(
            "decision_http.cpu_microseconds", middle(ours, lambda one: one.cpu_microseconds), at_most=50,
            note="the same target, whatever else the machine does",
        ),
        Figure("decision_http.p99_milliseconds", middle(ours, lambda one: one.outcome.p99_milliseconds)),
        Figure("decision_http.plain_per_second", plain_rate, note="a trivial answer of the same server"),
        Figure("decision_http.plain_cpu_microseconds", middle(theirs, lambda one: one.cpu_microseconds)),
        Figure("decision_http.part_of_plain", rate / plain_rate),
        Figure("decision_http.client_per_second", client_rate, note="what the client itself can do"),
    ]  # fmt: skip


def _round(pid: int, requests: Requests, seconds: float) -> _Round:
    before = cpu_seconds(pid)
    outcome = load(requests, connections=_CONNECTIONS, seconds=seconds)
    return _Round(outcome, cpu_seconds(pid) - before)


async def _fill(platform: Platform, keys: int) -> None:
    database = await Database.open(database_dsn("gateway", platform.layout, platform.credentials))
    try:
        await fill_database(database, keys)
    finally:
        await database.close()


async def _decisions(platform: Platform) -> list[bytes]:
    """Write requests of accounts that are opened for them."""
    operator, draw = Operator(platform), Random(1)
    keys = [(await operator.open_account(PLENTY)).key for _ in range(_ACCOUNTS)]
    token = platform.credentials.token(OPERATOR, "gateway")
    bodies = (
        {
            "facts": {
                "method": "POST",
                "path": CHAT,
                "client_address": "127.0.0.1",
                "body_bytes": draw.randint(100, 5_000),
                "model": model_id(draw.randrange(MODELS)),
                "stream": True,
                "max_tokens": draw.choice((100, 1_000)),
            },
            "api_key": key,
            "request_id": f"req_{number:032d}",
        }
        for number, key in enumerate(itertools.islice(itertools.cycle(keys), _REQUESTS))
    )
    headers = {"authorization": f"Bearer {token}"}
    return [post("/internal/decisions", json.dumps(body).encode(), headers) for body in bodies]


def _until_admitted(requests: Requests) -> None:
    """Ask until every account is known and has its lease."""
    for _ in range(100):
        try:
            load(requests, connections=_CONNECTIONS, seconds=0.5)
        except UnexpectedAnswer:
            continue
        return
    raise TimeoutError("the gateway does not admit the accounts of the benchmark")
