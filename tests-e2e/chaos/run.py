"""One run: a platform, a load on it, the kills, and what is known after them."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import grpc.aio

from chaos.books import read_books
from chaos.facts import Facts
from chaos.kills import Killer, victims
from chaos.load import Load, pause
from chaos.quiet import HOLDS_METRIC, Quiet
from dozen_local.platform import Platform
from dozen_testing.conditions import eventually
from dozen_testing.tasks import running
from journey import Account, Operator, temporary_platform

Report = Callable[[str], None]

ACCOUNTS = {1_000_000_000: 2, 5_000_000: 2, 60_000: 3}
"""How many accounts have how many nano-credits: some have plenty, some run out all the time."""
TOP_UP = 20_000
"""What an account that has run out gets, between two kills."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to be like."""

    kills: int
    seed: int
    rate: float = 12.0
    """Calls a second."""
    pause: float = 3.0
    """Longest time between two kills, in seconds."""
    lease: float = 5.0
    """Lifetime of a lease, in seconds."""
    longest_request: float = 60.0
    """How long an expired lease is kept, in seconds."""

    def settings(self) -> dict[str, dict[str, str]]:
        """Give the settings of services that differ from those of other platforms."""
        longest = {"DOZEN_LONGEST_REQUEST_SECONDS": str(self.longest_request)}
        return {
            "credits": {"DOZEN_LEASE_SECONDS": str(self.lease), **longest},
            "gateway": longest,
        }


def run(plan: Plan, report: Report) -> Facts:
    """Do all of it; give the facts."""
    report("a platform starts")
    with temporary_platform(plan.settings()) as platform:
        return asyncio.run(Run(plan, platform, report).facts())


class Run:
    """A run on a platform."""

    def __init__(self, plan: Plan, platform: Platform, report: Report) -> None:
        self._plan = plan
        self._platform = platform
        self._report = report
        self._draw = Random(plan.seed)
        self._operator = Operator(platform)
        self._granted: Counter[str] = Counter()
        self._numbers = itertools.count(1)

    async def facts(self) -> Facts:
        """Call, kill, heal and wait until all is quiet; then look."""
        accounts = [
            await self._open(nano_credits) for nano_credits, count in ACCOUNTS.items() for _ in range(count)
        ]
        url = self._platform.layout.http_address("gateway")
        load = Load(url, accounts, rate=self._plan.rate, draw=Random(self._draw.random()))
        killer = Killer(self._platform)
        async with running(load.run()) as calling:
            await eventually(lambda: _any_acknowledged(load), 60)
            await self._kill(load, killer)
            load.stop()
            await killer.heal()
            await calling
        self._report(f"{len(load.calls)} calls by status: {load.outcomes()}")
        quiet = Quiet(self._platform, [account.id for account in accounts], self._report)
        late = await quiet.wait(self._plan.lease, self._plan.longest_request)
        holds = await quiet.open_holds()
        if holds is None:
            late.append(f"the gateway does not tell {HOLDS_METRIC}")
        return Facts(
            granted=self._granted,
            calls=load.calls,
            books=await read_books(self._platform, list(self._granted), self._plan.longest_request),
            open_holds=holds or 0,
            longest_request_seconds=self._plan.longest_request,
            faults=killer.faults + late,
        )

    async def _kill(self, load: Load, killer: Killer) -> None:
        for number, name in enumerate(victims(self._plan.kills, self._draw), 1):
            await pause(asyncio.Event(), self._draw.uniform(0, self._plan.pause))
            self._report(f"kill {number} of {self._plan.kills}: {name}; {len(load.calls)} calls by now")
            await killer.kill(name)
            await self._top_up(load)

    async def _open(self, nano_credits: int) -> Account:
        account = await self._operator.open_account(nano_credits)
        self._granted[account.id] += nano_credits
        return account

    async def _top_up(self, load: Load) -> None:
        for account in sorted(load.dry):
            key = f"top-up-{next(self._numbers)}"

            async def granted(account: str = account, key: str = key) -> bool:
                try:
                    await self._operator.grant(account, TOP_UP, idempotency_key=key)
                except grpc.aio.AioRpcError:
                    return False
                return True

            await eventually(granted, 60)
            self._granted[account] += TOP_UP
        load.dry.clear()


async def _any_acknowledged(load: Load) -> bool:
    return any(call.acknowledged for call in load.calls)
