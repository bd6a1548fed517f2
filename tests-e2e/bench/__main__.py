"""The command behind `make bench`."""

import argparse
import pkgutil
import signal
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rich.console import Console

from bench import measures
from bench.figures import Effort, Figure, table, write
from dozen_local.layout import REPOSITORY

_WIDTH = 140  # of a table that goes into a file
NAMES = sorted(module.name for module in pkgutil.iter_modules(measures.__path__))


def main() -> None:
    """Measure, print the table and write the file."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is stopped before
    effort = Effort(arguments.rounds, arguments.scale)
    figures: list[Figure] = []
    for name in arguments.only or NAMES:
        module = import_module(f"bench.measures.{name}")
        began = time.monotonic()
        print(f"{name}: {module.__doc__}", file=sys.stderr, flush=True)
        found: Sequence[Figure] = module.measure(effort)
        figures += found
        print(f"{name}: took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    width = None if sys.stdout.isatty() else _WIDTH
    Console(highlight=False, width=width).print(table(figures))
    write(arguments.output, figures)
    print(f"Written to {arguments.output}", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=sys.modules["bench"].__doc__)
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=NAMES, help=f"some of {', '.join(NAMES)}"
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        metavar="N",
        help="a figure is the median of so many (default: %(default)s)",
    )
    parser.add_argument(
        "--scale", type=float, default=1.0, metavar="X",
        help="part of the full number of keys, records and seconds, for a quick look (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=REPOSITORY / ".dozen" / "bench" / "latest.json", metavar="FILE",
        help="where figures are written, as JSON (default: %(default)s)",
    )  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    main()
