"""What is sent through whole proxies, and the figures that come of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from bench.figures import Effort, Figure
from bench.path import DIRECT, Found, Load, Round, System, compare
from bench.rounds import resident_mebibytes
from bench.traffic import Traffic
from bench.upstream import FAST, slow

MANY = 1000
_PAUSE, _LONG_PAUSE = 20, 100
"""Milliseconds between two tokens: of the slow streams, and of the thousand."""
SLOW, SLOW_MANY = slow(_PAUSE, 100), slow(_LONG_PAUSE, 30)
MODELS = (FAST, SLOW, SLOW_MANY)

_CONNECTIONS = {"plain_1": 1, "plain": 32, "plain_256": 256}
_STREAMS = 32
_FREE_CONNECTIONS = 128
"""For requests at a fixed rate, so that one that takes long does not hold up others."""


@dataclass(frozen=True)
class Targets:
    """What a subject is to keep to; None where nothing is asked."""

    plain_cpu: float | None = None
    stream_cpu: float | None = None
    chunks_cpu: float | None = None
    worst_gap: float | None = None
    added_p50: float | None = None
    added_p99: float | None = None


def run(effort: Effort, subject: System, others: Sequence[System]) -> Found:
    """Send every load through all systems, in turns."""
    found, systems = Found(), [subject, *others]
    before = {system.name: _memory(system) for system in systems}
    compare(found, _loads(effort, subject), systems, effort)

    def half(system: System) -> Traffic:
        rated = subject.name if system.name == DIRECT else system.name
        rate = found.middle("plain", rated, _per_second) / 2
        return Traffic(_FREE_CONNECTIONS, effort.seconds, rate=rate)

    compare(found, [Load("half", FAST, half, only=lambda one: found.has("plain", one.name))], systems, effort)
    found.memory = {system.name: (before[system.name], _memory(system)) for system in systems}
    return found


def _memory(system: System) -> float:
    return sum(map(resident_mebibytes, system.pids.values()))


def _loads(effort: Effort, subject: System) -> list[Load]:
    def steady(connections: int) -> Callable[[System], Traffic]:
        return lambda _: Traffic(connections, effort.seconds)

    def gathering(streams: int) -> Traffic:
        return Traffic(streams, effort.seconds, ramp_seconds=effort.seconds / 3)

    return [
        *(Load(name, FAST, steady(connections)) for name, connections in _CONNECTIONS.items()),
        Load("stream", FAST, steady(_STREAMS), streamed=True),
        Load("slow", SLOW, lambda system: gathering(system.slow_streams), streamed=True),
        Load(
            "slow_1000", SLOW_MANY, lambda _: gathering(MANY), streamed=True,
            only=lambda system: system.name in (DIRECT, subject.name),
        ),
    ]  # fmt: skip


def figures(prefix: str, found: Found, system: System, targets: Targets | None = None) -> list[Figure]:
    """Give what was found of one system."""
    aims, made = targets or Targets(), []
    for load, connections in _CONNECTIONS.items():
        if found.has(load, system.name):
            aim = aims.plain_cpu if load == "plain" else None
            made += _answers(
                f"{prefix}.{load}",
                found,
                load,
                system,
                f"{connections} connection{'s' * (connections > 1)}",
                aim,
            )
    if found.has("stream", system.name):
        note = f"{_STREAMS} at once, {found.middle('stream', system.name, _events):.0f} events each"
        made += _answers(f"{prefix}.stream", found, "stream", system, note, aims.stream_cpu)
        made.append(_first_byte(f"{prefix}.stream", found, "stream", system))
    if found.has("slow", system.name):
        made += [
            Figure(
                f"{prefix}.slow.cpu_per_1000_chunks",
                found.middle("slow", system.name, lambda one: one.cpu_per_1000_events),
                at_most=aims.chunks_cpu,
                note=f"CPU s; {system.slow_streams} streams, a token every {_PAUSE} ms",
            ),
            Figure(
                f"{prefix}.slow.gap_p99_ms",
                found.middle("slow", system.name, lambda one: one.outcome.gap.p99),
                note=f"{_PAUSE} ms of it are the upstream's",
            ),
            _first_byte(f"{prefix}.slow", found, "slow", system),
        ]
    if found.has("slow_1000", system.name):
        made += [
            Figure(
                f"{prefix}.slow_1000.worst_gap_ms",
                found.middle("slow_1000", system.name, lambda one: one.outcome.gap.most) - _LONG_PAUSE,
                at_most=aims.worst_gap,
                note=f"beyond the {_LONG_PAUSE} ms between two tokens; {MANY} streams",
            ),
            Figure(
                f"{prefix}.slow_1000.cpu_per_1000_chunks",
                found.middle("slow_1000", system.name, lambda one: one.cpu_per_1000_events),
            ),
        ]
    if found.has("half", system.name) and found.has("half", DIRECT) and system.name != DIRECT:
        rate = found.middle("half", system.name, _per_second)
        note = f"against the upstream alone, at {rate:,.0f} requests per second"
        added = [
            (
                "p50",
                found.middle("half", system.name, _p50) - found.middle("half", DIRECT, _p50),
                aims.added_p50,
            ),
            (
                "p99",
                found.middle("half", system.name, _p99) - found.middle("half", DIRECT, _p99),
                aims.added_p99,
            ),
        ]
        made += [
            Figure(f"{prefix}.added_{name}_ms", value, at_most=aim, note=note) for name, value, aim in added
        ]
    for name, value in zip(("start", "after"), found.memory.get(system.name, ()), strict=False):
        made.append(Figure(f"{prefix}.memory_{name}_mebibytes", value))
    return made


def ratios(prefix: str, found: Found, subject: System, other: System, at_least: float | None) -> list[Figure]:
    """Compare two systems by their answers per second of CPU time."""
    made = []
    for load in ("plain", "stream"):
        if found.has(load, subject.name) and found.has(load, other.name):
            ours, theirs = (
                found.middle(load, one.name, lambda one: one.cpu_per_1000) for one in (subject, other)
            )
            made.append(
                Figure(
                    f"{prefix}.{load}.rps_ratio_vs_{other.name}",
                    ratio(ours, theirs),
                    at_least=at_least,
                    note="answers per second of CPU time",
                )
            )
    return made


def ratio(ours: float, theirs: float) -> float:
    """Say how many times as much we do for the same CPU time, from what a number of answers costs each."""
    return theirs / ours


def _answers(
    name: str, found: Found, load: str, system: System, connections: str, at_most: float | None
) -> list[Figure]:
    rounds = found.rounds(load, system.name)
    told = f"CPU s{_by_process(rounds, 'cpu')}"
    if system.behind:
        told += f"; behind it{_by_process(rounds, 'behind')}"
    return [
        Figure(f"{name}.rps", found.middle(load, system.name, _per_second), note=connections),
        Figure(f"{name}.cpu_per_1000", found.middle(load, system.name, _cpu), at_most=at_most, note=told),
        Figure(f"{name}.p50_ms", found.middle(load, system.name, _p50)),
        Figure(f"{name}.p99_ms", found.middle(load, system.name, _p99)),
    ]


def _first_byte(name: str, found: Found, load: str, system: System) -> Figure:
    return Figure(
        f"{name}.first_byte_p50_ms", found.middle(load, system.name, lambda one: one.outcome.first_byte.p50)
    )


def _by_process(rounds: Sequence[Round], of: str) -> str:
    """Say what each process has of it, where there are several."""
    shares: Sequence[Mapping[str, float]] = [
        {name: seconds / one.outcome.answers * 1000 for name, seconds in getattr(one, of).items()}
        for one in rounds
    ]
    if len(shares[0]) == 1 and of == "cpu":
        return ""
    middle = {name: median(share[name] for share in shares) for name in shares[0]}
    return ": " + ", ".join(f"{name} {value:.3f}" for name, value in middle.items())


def _per_second(one: Round) -> float:
    return one.outcome.per_second


def _cpu(one: Round) -> float:
    return one.cpu_per_1000


def _events(one: Round) -> float:
    return one.outcome.events / one.outcome.answers


def _p50(one: Round) -> float:
    return one.outcome.latency.p50


def _p99(one: Round) -> float:
    return one.outcome.latency.p99
