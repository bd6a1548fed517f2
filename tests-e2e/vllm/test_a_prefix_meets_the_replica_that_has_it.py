"""Behind the real gateway two real vLLMs have more of each prompt in their caches than if they took turns."""

import asyncio
import random
import string
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from statistics import mean, quantiles
from typing import Any

import pytest
from nats.aio.client import Client
from openai import APIStatusError, AsyncOpenAI

from dozen_local.nats import NatsServer
from dozen_testing.clients import openai_client
from dozen_testing.conditions import eventually
from dozen_testing.databases import TestDatabases
from vllm.replicas import Replicas, run_replicas
from vllm.server import MODEL, Vllm

pytestmark = pytest.mark.integration

PREFIXES = 12
PREFIX_CHARACTERS = 1100
"""About as many tokens, which are eight blocks: the KV cache of one server has room for eight prefixes."""
ROUNDS = 6
AT_ONCE = 4
MARGIN = 0.2

Ask = Callable[[int, str, str], Awaitable[float]]
"""Sends the request of that number, with a system prompt and a question; gives seconds to the first token."""


@dataclass(frozen=True)
class Figures:
    """What came of a number of requests."""

    hit_rate: float
    """Part of all prompt tokens that vLLM found in its cache."""
    seconds: Sequence[float]
    """To the first token, of each request."""

    def __str__(self) -> str:
        ms = [1000 * one for one in self.seconds]
        p95 = quantiles(ms, n=20)[-1]
        return f"hit rate {self.hit_rate:.2f}, first token after {mean(ms):.0f} ms, p95 {p95:.0f} ms"


@pytest.fixture
async def replicas(
    databases: TestDatabases, nats_server: NatsServer, nats_client: Client, vllm: Vllm, second_vllm: Vllm
) -> AsyncIterator[Replicas]:
    async with run_replicas(databases, nats_server, nats_client, [vllm, second_vllm]) as replicas:
        yield replicas


async def test_a_prefix_meets_the_replica_that_has_it(
    replicas: Replicas, vllm: Vllm, second_vllm: Vllm, record_property: Callable[[str, object], None]
) -> None:
    servers = [vllm, second_vllm]
    async with (
        AsyncOpenAI(base_url=f"{replicas.gateway}/v1", api_key=replicas.api_key, max_retries=0) as gateway,
        openai_client(replicas.chats[0], replicas.signer(0)) as one,
        openai_client(replicas.chats[1], replicas.signer(1)) as other,
    ):
        await eventually(lambda: _is_admitted(gateway), 30)
        chats = [one, other]
        ours = await _measure(servers, "ours", lambda _, *said: _first_token(gateway, *said))
        turns = await _measure(
            servers, "in turn", lambda number, *said: _first_token(chats[number % 2], *said)
        )
    record_property("affinity", str(ours))
    record_property("in turn", str(turns))
    print(f"\naffinity: {ours}\nin turn:  {turns}")  # noqa: T201  # shown with -s
    assert ours.hit_rate > turns.hit_rate + MARGIN


async def _measure(servers: Sequence[Vllm], name: str, ask: Ask) -> Figures:
    draw = random.Random(name)
    prompts = ["".join(draw.choices(string.ascii_letters, k=PREFIX_CHARACTERS)) for _ in range(PREFIXES)]
    order = [number for _ in range(ROUNDS) for number in draw.sample(range(PREFIXES), PREFIXES)]
    before = [_counts(server) for server in servers]
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int, prefix: int) -> float:
        async with room:
            return await ask(number, prompts[prefix], f"Question {number}?")

    seconds = await asyncio.gather(*(one(number, prefix) for number, prefix in enumerate(order)))
    after = [_counts(server) for server in servers]
    hits, queries = (
        sum(now[which] - then[which] for now, then in zip(after, before, strict=True)) for which in (0, 1)
    )
    shares = [(now[1] - then[1]) / queries for now, then in zip(after, before, strict=True)]
    assert min(shares) > 0.3, f"one server had nearly everything: {shares}"
    return Figures(hits / queries, seconds)


def _counts(server: Vllm) -> tuple[float, float]:
    return server.count("vllm:prefix_cache_hits_total"), server.count("vllm:prefix_cache_queries_total")


async def _first_token(client: AsyncOpenAI, system: str, question: str) -> float:
    messages: Any = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    began = time.perf_counter()
    stream = await client.chat.completions.create(
        model=MODEL, messages=messages, max_tokens=4, stream=True, extra_body={"ignore_eos": True}
    )
    first = None
    async for _ in stream:
        first = first or time.perf_counter() - began
    assert first is not None
    return first


async def _is_admitted(gateway: AsyncOpenAI) -> bool:
    try:
        await _first_token(gateway, "", "Are you there?")
    except APIStatusError:  # it has not heard of the model, the price or the account yet
        return False
    return True
