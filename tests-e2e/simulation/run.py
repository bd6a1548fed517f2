"""Runs: one of a seed, or many at once."""

import asyncio
import logging
import multiprocessing
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256

from simulation.plan import Plan
from simulation.stage import Parts, Stage
from simulation.world import VirtualLoop, World

WHOLE = Parts()
_PROCESSES = 2
_TOGETHER = 10


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run."""

    seed: int
    violations: tuple[str, ...]
    trace: tuple[str, ...]
    """Kept where something was violated, or where it is asked for."""
    digest: str
    """Of the whole trace."""
    admitted: int
    charged: int


def simulate(seed: int, parts: Parts = WHOLE, *, keeps_trace: bool = False) -> Outcome:
    """Play a seed; it is the same run every time."""
    with _silence(), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        stage = runner.run(_play(Plan.draw(seed), parts))
        world = stage.world
        return Outcome(
            seed=seed,
            violations=tuple(world.violations),
            trace=(repr(stage.plan), *world.lines) if keeps_trace or world.violations else (),
            digest=sha256("\n".join(world.lines).encode()).hexdigest(),
            admitted=stage.clients.admitted,
            charged=len(stage.bank.tables.payments),
        )


def simulate_all(seeds: Sequence[int]) -> Iterator[Outcome]:
    """Play seeds on several processors."""
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_PROCESSES, mp_context=spawned) as pool:
        yield from pool.map(simulate, seeds, chunksize=_TOGETHER)


async def _play(plan: Plan, parts: Parts) -> Stage:
    world = World(plan.seed)
    world.loop.set_exception_handler(
        lambda _, context: world.expect(False, f"{context['message']}: {context.get('exception')!r}")
    )
    stage = Stage(world, plan, parts)
    await stage.play()
    return stage


@contextmanager
def _silence() -> Iterator[None]:
    """Let nothing be logged: what goes wrong here is meant to."""
    before = logging.root.manager.disable
    logging.disable()
    try:
        yield
    finally:
        logging.disable(before)
