"""The start of a gateway: all that it decides by is read from its database."""

import asyncio
import time
from collections.abc import Sequence
from statistics import median

from bench.figures import Effort, Figure
from bench.gateway import KEYS, fill_database
from bench.rounds import SERVER_CORE, in_fresh_process, in_turns, on_core
from bench.servers import databases_and_nats, start
from dozen_chassis.postgres import Database
from dozen_gateway.domain.state import State
from dozen_gateway.repository.read_models import ReadModelsRepository
from dozen_local.environment import database_dsn
from dozen_local.platform import Platform


def measure(effort: Effort) -> Sequence[Figure]:
    """Read the state, and start the whole gateway, with all keys and with none."""
    keys = effort.of(KEYS)
    with databases_and_nats(["gateway"]) as platform:
        dsn = database_dsn("gateway", platform.layout, platform.credentials)
        empty = [_start(platform) for _ in range(effort.rounds)]
        asyncio.run(_fill(dsn, keys))
        measured = in_turns(
            effort.rounds,
            {"rebuild": lambda: in_fresh_process(_rebuild, dsn, keys), "start": lambda: _start(platform)},
        )
    return [
        Figure("state.rebuild_seconds", median(measured["rebuild"]), at_most=3, note=f"{keys:,} keys"),
        Figure("state.start_seconds", median(measured["start"]), note="of the process, until it is ready"),
        Figure("state.start_empty_seconds", median(empty), note="the same without any key"),
    ]


async def _fill(dsn: str, keys: int) -> None:
    database = await Database.open(dsn)
    try:
        await fill_database(database, keys)
    finally:
        await database.close()


def _rebuild(dsn: str, keys: int) -> float:
    async def rebuild() -> float:
        database = await Database.open(dsn)
        await database.ping()
        state, began = State(), time.perf_counter()
        state.learn(await ReadModelsRepository(database).read())
        seconds = time.perf_counter() - began
        assert len(state.keys) == keys
        await database.close()
        return seconds

    with on_core(SERVER_CORE):
        return asyncio.run(rebuild())


def _start(platform: Platform) -> float:
    process = platform.processes["gateway"]
    began = time.perf_counter()
    start(process)
    seconds = time.perf_counter() - began
    process.stop()
    return seconds
