"""The command behind `make chaos`: one line on standard output, progress on standard error."""

import argparse
import signal
import sys
import time
from random import Random

from chaos.run import Plan, run
from chaos.verdict import judge, late
from dozen_local.platform import PlatformError
from dozen_local.processes import ProcessFailed


def main() -> int:
    """Run it; return 1 where anything was found."""
    plan = _plan()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what runs is stopped before
    began = time.monotonic()

    def report(line: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {line}", file=sys.stderr, flush=True)

    report(f"seed {plan.seed}")
    try:
        facts = run(plan, report)
    except (PlatformError, ProcessFailed) as error:
        report(f"cut short: {error}")
        return 1
    verdict = judge(facts)
    for row in late(facts.books):
        report(f"{row.request_id} was reported after its lease had ended, and {row.written_off} not paid")
    for line in verdict.details():
        print(line, file=sys.stderr)
    print(verdict.summary(plan.kills))
    return 0 if verdict.is_clean else 1


def _plan() -> Plan:
    parser = argparse.ArgumentParser(prog="chaos", description=sys.modules["chaos"].__doc__)
    parser.add_argument("--kills", type=int, default=100, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=Random().randrange(10**6), help="of what is killed when, and of the calls"
    )
    parser.add_argument(
        "--rate", type=float, default=12.0, metavar="N", help="calls a second (default: %(default)s)"
    )
    parser.add_argument(
        "--pause", type=float, default=3.0, metavar="S",
        help="the longest time between two kills (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--lease", type=float, default=5.0, metavar="S", help="lifetime of a lease (default: %(default)s)"
    )
    parser.add_argument(
        "--longest-request", type=float, default=60.0, metavar="S",
        help="how long an expired lease is kept for usage that comes late (default: %(default)s)",
    )  # fmt: skip
    return Plan(**vars(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
