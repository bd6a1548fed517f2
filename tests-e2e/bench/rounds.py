"""Measuring in turns, in processes of their own, on cores of their own."""

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from statistics import median
from typing import ParamSpec, TypeVar

import psutil

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")

SERVER_CORE, REST_CORE = 0, 1
"""What is measured has one core; the load and what stands behind share the other."""


def in_turns(rounds: int, variants: Mapping[str, Callable[[], Result]]) -> dict[str, list[Result]]:
    """Measure every variant once a round, so that what else the machine does is the same for all of them."""
    results: dict[str, list[Result]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, measure in variants.items():
            results[name].append(measure())
    return results


def middle(results: list[Result], of: Callable[[Result], float]) -> float:
    """Give the median of one quantity of some results."""
    return median(map(of, results))


def percentile(sorted_values: list[float] | list[int], part: float) -> float:
    """Give the value below which that part of the values lies."""
    return sorted_values[min(len(sorted_values) - 1, int(len(sorted_values) * part))]


def in_fresh_process(
    work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Run a function of a module in a process that has done nothing before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(work, *args, **kwargs).result()


@contextmanager
def on_core(number: int | None) -> Iterator[None]:
    """Keep this thread, and processes that it starts in the block, on one core, where that can be done."""
    if number is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(cores)[number % len(cores)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def cpu_seconds(pid: int) -> float:
    """Give the CPU time that a process and its children have used."""
    return sum(times.user + times.system for times in (one.cpu_times() for one in family(pid)))


def resident_mebibytes(pid: int | None = None) -> float:
    """Give the memory that a process and its children have; that of this process where none is named."""
    processes = [psutil.Process()] if pid is None else family(pid)
    return float(sum(one.memory_info().rss for one in processes) / 2**20)


def family(pid: int) -> list[psutil.Process]:
    """Give a process and its children."""
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]
