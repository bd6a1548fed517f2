"""The whole path, edge, gateway and chat with keys, limits, holds and billing, beside other proxies."""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from importlib import import_module

from bench.dozen import dozen
from bench.figures import CannotMeasure, Effort, Figure
from bench.loads import MODELS, Targets, figures, ratios, run
from bench.path import System, direct
from bench.upstream import Upstream, upstream
from dozen_local.processes import ProcessFailed

_TARGETS = Targets(plain_cpu=0.2, stream_cpu=0.6, chunks_cpu=0.05, worst_gap=50, added_p50=1, added_p99=5)


_RATIOS = {"tensorzero": 1.0, "litellm": 50.0}
"""Answers per second of CPU time, as a multiple of theirs."""


def measure(effort: Effort) -> Sequence[Figure]:
    """Send all of them the same, in turns."""
    with ExitStack() as stack:
        server = stack.enter_context(upstream())
        peers = [peer for name in effort.peers if (peer := _started(stack, name, server))]
        platform = stack.enter_context(dozen(server, MODELS))
        subject = System(
            "edge",
            platform.port("gateway"),
            {name: platform.pid(name) for name in ("gateway", "chat")},
            platform.requests,
            behind={name: platform.pid(name) for name in ("credits", "postgres", "nats")},
        )
        others = [direct(server), *peers]
        found = run(effort, subject, others)
    made = figures("edge", found, subject, _TARGETS)
    for peer in peers:
        made += ratios("edge", found, subject, peer, _RATIOS.get(peer.name))
    for other in others:
        made += figures(f"edge.{other.name}", found, other)
    return made


def _started(stack: ExitStack, name: str, server: Upstream) -> System | None:
    """Start another proxy; say so where that cannot be."""
    run_peer: Callable[[Upstream], AbstractContextManager[System]] = import_module(f"bench.peers.{name}").run
    try:
        return stack.enter_context(run_peer(server))
    except (CannotMeasure, ProcessFailed) as error:
        print(f"  without {name}: {error}", file=sys.stderr, flush=True)
        return None
