"""Whole proxies side by side: the same requests through each, in turns."""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from bench import upstream
from bench.figures import Effort
from bench.load import UnexpectedAnswer, post
from bench.rounds import cpu_seconds, in_turns
from bench.traffic import Outcome, Traffic, drive
from dozen_testing.conditions import eventually

DIRECT = "direct"
CHAT = "/v1/chat/completions"
_REQUESTS = 512
"""Different ones."""
_QUIET_SECONDS, _LONGEST_QUIET_SECONDS = 0.1, 3.0
_TICK = 0.01  # what the kernel counts CPU time by

Prepare = Callable[[Sequence[Mapping[str, Any]]], list[bytes]]


@dataclass(frozen=True)
class System:
    """One that is measured."""

    name: str
    port: int
    pids: Mapping[str, int]
    """Processes whose CPU time counts, with their children, by name."""
    prepare: Prepare
    """Makes HTTP requests of request bodies."""
    behind: Mapping[str, int] | None = None
    """Further processes that work for each request; theirs is told apart."""
    slow_streams: int = 256
    """As many at once as it can follow."""
    is_ours: bool = True
    """Another may fail at a load, and is then left out of that."""


@dataclass(frozen=True)
class Load:
    """What is sent, and how."""

    name: str
    model: str
    traffic: Callable[[System], Traffic]
    streamed: bool = False
    only: Callable[[System], bool] = lambda system: True


@dataclass(frozen=True)
class Round:
    """What came of one load on one system, once."""

    outcome: Outcome
    cpu: Mapping[str, float]
    """Seconds, by process; those of the system itself."""
    behind: Mapping[str, float]

    @property
    def cpu_per_1000(self) -> float:
        """CPU seconds for 1,000 answers."""
        return sum(self.cpu.values()) / self.outcome.answers * 1000

    @property
    def cpu_per_1000_events(self) -> float:
        """CPU seconds for 1,000 events of streams."""
        return sum(self.cpu.values()) / self.outcome.events * 1000


class Found:
    """All rounds, by load and system."""

    def __init__(self) -> None:
        self._rounds: dict[tuple[str, str], list[Round]] = {}
        self.memory: dict[str, tuple[float, float]] = {}
        """Of each system, in MiB, before all loads and after them."""

    def add(self, load: str, rounds: Mapping[str, list[Round]]) -> None:
        """Keep the rounds of one load, by system."""
        self._rounds |= {(load, system): several for system, several in rounds.items() if several}

    def has(self, load: str, system: str) -> bool:
        """Tell whether that was measured."""
        return (load, system) in self._rounds

    def middle(self, load: str, system: str, of: Callable[[Round], float]) -> float:
        """Give the median of one quantity."""
        return median(map(of, self._rounds[load, system]))

    def rounds(self, load: str, system: str) -> Sequence[Round]:
        """Give the rounds of one load on one system."""
        return self._rounds[load, system]


def direct(server: upstream.Upstream, name: str = DIRECT) -> System:
    """Give the upstream itself as the system to compare with."""
    return System(name, server.port, {"upstream": server.pid}, without_key)


def without_key(asked: Sequence[Mapping[str, Any]]) -> list[bytes]:
    """Make requests that need no authentication."""
    return with_headers({})(asked)


def with_headers(headers: Mapping[str, str], path: str = CHAT, model: str = "{}") -> Prepare:
    """Make requests with headers; the system may have a name of its own for a model."""

    def prepare(asked: Sequence[Mapping[str, Any]]) -> list[bytes]:
        named = ({**one, "model": model.format(one["model"])} for one in asked)
        return [post(path, json.dumps(one).encode(), dict(headers)) for one in named]

    return prepare


def asked(model: str, *, streamed: bool) -> list[dict[str, Any]]:
    """Give request bodies of about 600 bytes, all different."""
    lines = "The traveller asks which of these towns has the oldest bridge, and why it was built there. " * 4
    streaming = {"stream": True, "stream_options": {"include_usage": True}} if streamed else {}
    return [
        {
            "model": model,
            "messages": [
                {"role": "system", "content": f"You are guide number {number} and answer in one sentence."},
                {"role": "user", "content": lines},
            ],
            "max_tokens": 128,
            "temperature": 0.7,
            **streaming,
        }
        for number in range(_REQUESTS)
    ]


def compare(found: Found, loads: Iterable[Load], systems: Sequence[System], effort: Effort) -> None:
    """Put each load on all systems in turns; one that is not ours may fail, and is then left out of that."""
    for load in loads:
        variants = {}
        for system in systems:
            if not load.only(system):
                continue
            requests = system.prepare(asked(load.model, streamed=load.streamed))
            one = partial(_round, system, requests, load)
            try:
                one(warm_up=True)
            except UnexpectedAnswer as error:
                if system.is_ours:
                    raise
                _say(f"  {load.name}: {system.name} fails: {error}")
                continue
            variants[system.name] = one
        found.add(load.name, in_turns(effort.rounds, variants))
        for name in variants:
            rate = found.middle(load.name, name, lambda one: one.outcome.per_second)
            cpu = found.middle(load.name, name, lambda one: one.cpu_per_1000)
            line = f"  {load.name:9} {name:10} {rate:10,.0f}/s {cpu:10.3f} CPU s per 1,000"
            if load.streamed:
                line += (
                    f", {found.middle(load.name, name, lambda one: one.cpu_per_1000_events):.4f} of events"
                )
            _say(line)


async def quiet(pids: Sequence[int]) -> None:
    """Wait until what was put off until after the answers is done, for it counts too."""
    began = changed = time.monotonic()
    spent = sum(map(cpu_seconds, pids))

    async def is_quiet() -> bool:
        nonlocal changed, spent
        now, so_far = time.monotonic(), sum(map(cpu_seconds, pids))
        if so_far - spent > 2 * _TICK:
            changed, spent = now, so_far
        return now - changed > _QUIET_SECONDS or now - began > _LONGEST_QUIET_SECONDS

    await eventually(is_quiet, 2 * _LONGEST_QUIET_SECONDS)


def _round(system: System, requests: Sequence[bytes], load: Load, *, warm_up: bool = False) -> Round:
    traffic = load.traffic(system)
    if warm_up:
        traffic = Traffic(min(32, traffic.connections), 0.3)
    behind = system.behind or {}
    before = _cpu(system.pids), _cpu(behind)
    outcome = drive(system.port, requests, "[DONE]" if load.streamed else '"usage"', traffic)
    asyncio.run(quiet([*system.pids.values(), *behind.values()]))
    after = _cpu(system.pids), _cpu(behind)
    return Round(outcome, _spent(before[0], after[0]), _spent(before[1], after[1]))


def _cpu(pids: Mapping[str, int]) -> dict[str, float]:
    return {name: cpu_seconds(pid) for name, pid in pids.items()}


def _spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    return {name: after[name] - before[name] for name in after}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
