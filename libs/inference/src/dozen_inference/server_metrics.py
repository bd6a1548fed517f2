"""What an inference server tells of its load, in Prometheus' text form."""

import math
import re
from typing import NamedTuple

# By the names that vLLM and llama.cpp have.
_RUNNING = ("vllm:num_requests_running", "llamacpp:requests_processing")
_WAITING = ("vllm:num_requests_waiting", "llamacpp:requests_deferred")
_KV_CACHE = ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "llamacpp:kv_cache_usage_ratio")

_SAMPLE = re.compile(
    rf"^({'|'.join((*_RUNNING, *_WAITING, *_KV_CACHE))})(?:\{{[^\n]*\}})? +(\S+)", re.MULTILINE
)


class ServerLoad(NamedTuple):
    """What an inference server says of itself; None where it does not."""

    running: int | None = None
    waiting: int | None = None
    kv_cache_usage: float | None = None
    """From 0 to 1; of several engines, that of the fullest."""


def read_load(metrics: bytes) -> ServerLoad:
    """Read the load of all engines of a server."""
    samples: dict[str, list[float]] = {}
    for name, text in _SAMPLE.findall(metrics.decode(errors="replace")):
        try:
            value = float(text)
        except ValueError:
            continue
        if math.isfinite(value) and value >= 0:
            samples.setdefault(name, []).append(value)

    def find(names: tuple[str, ...]) -> list[float]:
        return next((samples[name] for name in names if name in samples), [])

    running, waiting, usage = find(_RUNNING), find(_WAITING), find(_KV_CACHE)
    return ServerLoad(
        int(sum(running)) if running else None,
        int(sum(waiting)) if waiting else None,
        min(1.0, max(usage)) if usage else None,
    )
