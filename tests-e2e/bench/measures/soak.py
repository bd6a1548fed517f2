"""What is left behind by very many requests: memory, open files, connections, and streams nobody reads."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import psutil

from bench.dozen import CHAT, Dozen, dozen
from bench.figures import Effort, Figure
from bench.load import Requests, load, post
from bench.loads import MODELS, SLOW
from bench.path import asked, quiet
from bench.rounds import resident_mebibytes
from bench.traffic import Traffic, drive
from bench.upstream import FAST, Upstream, upstream
from dozen_testing.conditions import eventually

_PROCESSES = ("gateway", "chat", "credits")
_CONNECTIONS = 32
_LEAVERS = 64
_EVENTS_SEEN = 3
_LONGEST_SECONDS = 3600.0
_REST_SECONDS = 15.0
"""In which connections that nobody uses any more are closed."""
_FILES_OF_POOLS = 8
"""So many may come and go with the pools of PostgreSQL."""

_BAD_BODIES = (
    b'{"model": ',
    b"[]",
    b"\xff\xfe",
    b'{"model": "none", "messages": []}',
    b'{"model": "%s", "messages": [], "n": 2}' % FAST.encode(),
)


@dataclass(frozen=True)
class _State:
    memory: float
    files: int


def measure(effort: Effort) -> Sequence[Figure]:
    """Send requests through the whole path, three of four plain, one streamed; some are left or bad."""
    count = effort.requests
    with upstream() as server, dozen(server, MODELS) as platform:
        first = _states(platform)
        _send(platform, count // 10)
        _send_bad(platform, 0.3)
        _leave(platform, server, _LEAVERS)
        before, connections = _rested(platform, server, None)
        _send(platform, count - count // 10)
        _send_bad(platform, max(0.3, count / 20_000))
        left = _leave(platform, server, min(1000, count // 20))
        after, connections_after = _rested(platform, server, before)
    made = [
        Figure("soak.requests", count, note="growth is from the first tenth of them to the end"),
        Figure(
            "soak.cancelled_upstream", left, at_least=1,
            note="part of the streams that clients left after three events which ended upstream too",
        ),
        Figure("soak.upstream_connections_more", connections_after - connections, at_most=_FILES_OF_POOLS),
    ]  # fmt: skip
    for name in _PROCESSES:
        growth = (after[name].memory / before[name].memory - 1) * 100
        more_files = after[name].files - before[name].files
        made += [
            Figure(f"soak.{name}.memory_start_mebibytes", first[name].memory),
            Figure(f"soak.{name}.memory_after_mebibytes", after[name].memory),
            Figure(f"soak.{name}.memory_growth_percent", growth, at_most=5),
            Figure(
                f"soak.{name}.open_files_more", more_files, at_most=_FILES_OF_POOLS,
                note=f"{before[name].files} before",
            ),
        ]  # fmt: skip
    return made


def _send(platform: Dozen, count: int) -> None:
    for streamed, part in ((False, count - count // 4), (True, count // 4)):
        traffic = Traffic(_CONNECTIONS, _LONGEST_SECONDS, most_answers=max(1, part))
        requests = platform.requests(asked(FAST, streamed=streamed))
        drive(platform.port("gateway"), requests, "[DONE]" if streamed else '"usage"', traffic)


def _send_bad(platform: Dozen, seconds: float) -> None:
    """Send what the gateway refuses, before it reads it and after, and what only chat refuses."""
    key = f"Bearer {platform.keys[0]}"
    contents = [post(CHAT, body, {"authorization": key}) for body in _BAD_BODIES]
    contents.append(post(CHAT, _BAD_BODIES[-1], {"authorization": "Bearer dz-nobody-nokey-nosecret"}))
    load(Requests(platform.port("gateway"), contents, b'"error":{'), connections=8, seconds=seconds)


def _leave(platform: Dozen, server: Upstream, count: int) -> float:
    """Leave streams in their middle; give the part of them that ended at the upstream before their end."""
    before = server.counts()["aborted"]
    traffic = Traffic(_LEAVERS, _LONGEST_SECONDS, most_answers=max(1, count), leave_after=_EVENTS_SEEN)
    drive(platform.port("gateway"), platform.requests(asked(SLOW, streamed=True)), "", traffic)
    asyncio.run(quiet([platform.pid(name) for name in _PROCESSES]))
    return (server.counts()["aborted"] - before) / max(1, count)


def _states(platform: Dozen) -> dict[str, _State]:
    pids = {name: platform.pid(name) for name in _PROCESSES}
    return {
        name: _State(resident_mebibytes(pid), psutil.Process(pid).num_fds()) for name, pid in pids.items()
    }


def _rested(
    platform: Dozen, server: Upstream, before: dict[str, _State] | None
) -> tuple[dict[str, _State], int]:
    """Wait until the work is done and, for as long as it may take, until as few files are open as before."""

    async def are_closed(files: dict[str, _State]) -> bool:
        return all(state.files <= files[name].files for name, state in _states(platform).items())

    asyncio.run(quiet([platform.pid(name) for name in _PROCESSES]))
    if before is not None:
        with suppress(AssertionError):  # the figures say so
            asyncio.run(eventually(partial(are_closed, before), _REST_SECONDS))
    return _states(platform), server.counts()["connections"]
