"""The command: a table of how each way to choose does, as medians over seeds."""

import argparse
import sys
from statistics import median

from routing.gateways import POLICIES
from routing.outage import OUTAGE, Outage
from routing.plan import Fault, Plan
from routing.run import simulate


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="routing", description=sys.modules["routing"].__doc__)
    parser.add_argument("--seeds", type=int, default=5, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument(
        "--conversations", type=float, default=Plan(0).conversations, help="that begin each second"
    )
    asked = parser.parse_args()
    print(f"{'':12}{'':20}{'hit rate':>9}{'p50 s':>8}{'p99 s':>8}{'spread':>8}{'hottest on':>12}")
    for fault in Fault:
        for name, policy in POLICIES.items():
            outcomes = [
                simulate(Plan(seed, fault, conversations=asked.conversations), policy)
                for seed in range(asked.seeds)
            ]
            figures = (
                median(getattr(outcome, field) for outcome in outcomes)
                for field in ("hit_rate", "p50", "p99", "spread", "servers_of_hottest")
            )
            print(
                "{:12}{:20}{:9.1%}{:8.2f}{:8.2f}{:8.2f}{:12.0f}".format(fault.value, name, *figures),
                flush=True,
            )
    outages = [Outage(seed).play() for seed in range(asked.seeds)]
    print(f"\nA full outage of {OUTAGE[1] - OUTAGE[0]:.0f} s, with the retries of official clients:")
    for outage in outages:
        print(outage)
    return 0


if __name__ == "__main__":
    sys.exit(main())
