"""The killing: a process is killed, started again at once, and waited for."""

import asyncio
from collections.abc import Iterator
from random import Random

import asyncpg

from dozen_local.platform import Platform
from dozen_local.processes import Process
from dozen_testing.conditions import eventually

TARGETS = ("gateway", "credits", "embeddings", "chat", "nats", "postgres")
READY_SECONDS = 120.0


class Killer:
    """Kills processes of a platform, and finds those that end without it."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self.faults: list[str] = []

    async def kill(self, name: str) -> None:
        """Kill a process by SIGKILL, start it again, and return when it serves."""
        await self.revive()
        process = self._platform.processes[name]
        process.kill()

        async def has_ended() -> bool:
            return process.pid is None

        # PostgreSQL's children see for themselves that it is gone; before, its data are not to be touched.
        await eventually(has_ended, READY_SECONDS)
        await self._start(process)

    async def heal(self) -> None:
        """Start what does not run, and return when everything serves."""
        await self.revive()
        for process in self._platform.processes.values():
            await self._start(process)

    async def revive(self) -> None:
        """Start what has ended by itself, which nothing should."""
        for process in self._platform.processes.values():
            if process.pid is None:
                self.faults.append(f"{process.name} {process.ending()} by itself\n{process.log_tail()}")
                await self._start(process)

    async def _start(self, process: Process) -> None:
        process.start()
        if process.name == "postgres":  # its word that it is ready is a file, and outlives it
            await eventually(self._takes_connections, READY_SECONDS)
        else:
            await asyncio.to_thread(process.wait_until_ready, READY_SECONDS)

    async def _takes_connections(self) -> bool:
        try:
            connection = await asyncpg.connect(self._platform.postgres.superuser_dsn, timeout=5)
        except (OSError, TimeoutError, asyncpg.PostgresError):
            return False
        await connection.close()
        return True


def victims(kills: int, draw: Random) -> Iterator[str]:
    """Name so many processes to kill: in a random order, each as often as the others."""
    names: list[str] = []
    for _ in range(kills):
        names = names or draw.sample(TARGETS, len(TARGETS))
        yield names.pop()
