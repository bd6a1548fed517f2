"""The decision as a function, with all keys and models in memory."""

import gc
import itertools
import time
from collections.abc import Sequence
from random import Random
from statistics import median

from bench.figures import Effort, Figure
from bench.gateway import KEYS, MODELS, admit, endless_facts, full_state
from bench.rounds import SERVER_CORE, in_fresh_process, on_core, percentile, resident_mebibytes
from dozen_gateway.domain.decision import Facts
from dozen_gateway.domain.state import State

_DECISIONS = 50_000


def measure(effort: Effort) -> Sequence[Figure]:
    """Decide on requests by any key for any model."""
    return in_fresh_process(_measure, effort)


def _measure(effort: Effort) -> Sequence[Figure]:
    keys, draw = effort.of(KEYS), Random(1)
    before = resident_mebibytes()
    state = full_state(keys)
    memory = resident_mebibytes()
    gc.collect()
    gc.freeze()  # as a service does once it has started
    requests = list(itertools.islice(endless_facts(keys, draw), effort.of(_DECISIONS)))
    rates, medians, slowest = [], [], []
    with on_core(SERVER_CORE):
        for _ in range(effort.rounds):
            began = time.process_time()
            for facts in requests:
                admit(facts, state, draw)
            rates.append(len(requests) / (time.process_time() - began))
            nanoseconds = sorted(_time(facts, state, draw) for facts in requests)
            medians.append(percentile(nanoseconds, 0.5) / 1000)
            slowest.append(percentile(nanoseconds, 0.99) / 1000)
    return [
        Figure(
            "decide.per_second", median(rates), at_least=50_000,
            note=f"of CPU time; {keys:,} keys, {MODELS:,} models",
        ),
        Figure("decide.median_microseconds", median(medians)),
        Figure("decide.p99_microseconds", median(slowest), at_most=100),
        Figure("decide.memory_mebibytes", memory, at_most=300, note=f"{before:.0f} of it before any key"),
    ]  # fmt: skip


def _time(facts: Facts, state: State, draw: Random) -> int:
    started = time.perf_counter_ns()
    admit(facts, state, draw)
    return time.perf_counter_ns() - started
