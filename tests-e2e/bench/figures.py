"""What benchmarks find."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table


class CannotMeasure(Exception):
    """Something that a benchmark needs is not to be had here; the message says what."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure."""

    rounds: int = 3
    """Of each variant, in turns; a figure is the median of them."""
    scale: float = 1.0
    """Part of the full number of keys, records and seconds."""
    peers: Sequence[str] = ()
    """Other proxies to measure beside ours, by the names of `bench.peers`."""
    requests: int = 100_000
    """How many a soak sends, whatever the scale."""

    def of(self, number: int) -> int:
        """Give the number to measure with where that is the full one."""
        return max(1, round(number * self.scale))

    @property
    def seconds(self) -> float:
        """How long a round of load lasts."""
        return max(0.3, 3 * self.scale)


@dataclass(frozen=True, slots=True)
class Figure:
    """One number, and what it is to be."""

    name: str
    """Such as `decide.per_second`: the benchmark, then the quantity with its unit."""
    value: float
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def target(self) -> str:
        """Say what it is to be; empty where nothing is asked."""
        if self.at_least is not None:
            return f"≥ {_number(self.at_least)}"
        return f"≤ {_number(self.at_most)}" if self.at_most is not None else ""

    @property
    def is_met(self) -> bool:
        """Tell whether it is what it is to be."""
        return not (
            (self.at_least is not None and self.value < self.at_least)
            or (self.at_most is not None and self.value > self.at_most)
        )


def table(figures: Iterable[Figure]) -> Table:
    """Make the table that people read."""
    shown = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("figure", "value", "target"):
        shown.add_column(heading, justify="left" if heading == "figure" else "right", no_wrap=True)
    shown.add_column("")
    for figure in figures:
        colour = ("green" if figure.is_met else "red") if figure.target else ""
        value = f"[{colour}]{_number(figure.value)}" if colour else _number(figure.value)
        shown.add_row(figure.name, value, figure.target, figure.note)
    return shown


def write(path: Path, figures: Sequence[Figure]) -> None:
    """Keep figures for programs; those of benchmarks that were not run stay as they were."""
    path.parent.mkdir(parents=True, exist_ok=True)
    measured = {figure.name.split(".")[0] for figure in figures}
    known: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    kept = {name: value for name, value in known.items() if name.split(".")[0] not in measured}
    values = kept | {figure.name: round(figure.value, 6) for figure in figures}
    path.write_text(json.dumps(dict(sorted(values.items())), indent=1) + "\n")


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
