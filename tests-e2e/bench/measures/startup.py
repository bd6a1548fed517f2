"""The start of services of the path, from the process to its first ready answer, with empty databases."""

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from statistics import median

from bench.figures import Effort, Figure
from bench.rounds import REST_CORE, SERVER_CORE, in_turns, on_core, resident_mebibytes
from bench.servers import databases_and_nats, start
from dozen_local.platform import Platform
from dozen_testing.conditions import eventually

_SERVICES = ("gateway", "chat", "completion", "models")


def measure(effort: Effort) -> Sequence[Figure]:
    """Start each a few times, in turns."""
    with databases_and_nats([*_SERVICES, "credits"]) as platform:
        platform.layout.catalogue_file.write_text("models: []\n")
        for name in ("credits", *_SERVICES):  # their streams and tables are there from now on
            start(platform.processes[name], core=REST_CORE)
            if name != "credits":
                platform.processes[name].stop()
        found = in_turns(max(2, effort.rounds), {name: partial(_start, platform, name) for name in _SERVICES})
    made = []
    for name, starts in found.items():
        made += [
            Figure(f"startup.{name}_seconds", median(seconds for seconds, _ in starts), at_most=1),
            Figure(f"startup.{name}_mebibytes", median(memory for _, memory in starts)),
        ]
    return made


def _start(platform: Platform, name: str) -> tuple[float, float]:
    process = platform.processes[name]

    async def is_ready() -> bool:
        return process.program.is_ready()

    began = time.perf_counter()
    with on_core(SERVER_CORE):
        process.start()
    asyncio.run(eventually(is_ready, 60))
    seconds = time.perf_counter() - began
    assert process.pid is not None
    memory = resident_mebibytes(process.pid)
    process.stop()
    return seconds, memory
