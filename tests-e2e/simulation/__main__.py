"""The command behind `make simulate`: one line on standard output, what was violated on standard error."""

import argparse
import sys
from pathlib import Path

from simulation.run import Outcome, simulate, simulate_all

_FAILURES = Path(__file__).parents[2] / ".dozen" / "simulate" / "failures"
_SHOWN_LINES = 40


def main() -> int:
    """Run it; return 1 where anything was violated."""
    parser = argparse.ArgumentParser(prog="simulate", description=sys.modules["simulation"].__doc__)
    parser.add_argument(
        "--seeds", type=int, default=5000, metavar="N", help="how many (default: %(default)s)"
    )
    parser.add_argument(
        "--first-seed", type=int, default=0, metavar="SEED", help="where to begin (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, help="one run, with all that happens in it")
    asked = parser.parse_args()
    if asked.seed is not None:
        outcome = simulate(asked.seed, keeps_trace=True)
        print(*outcome.trace, sep="\n", file=sys.stderr)
        outcomes, violated = [outcome], [outcome] if outcome.violations else []
    else:
        outcomes, violated = [], []
        for outcome in simulate_all(range(asked.first_seed, asked.first_seed + asked.seeds)):
            outcomes.append(outcome)
            if outcome.violations:
                violated.append(outcome)
                _report(outcome)
    admitted, charged = sum(one.admitted for one in outcomes), sum(one.charged for one in outcomes)
    print(f"{admitted} requests were admitted, {charged} charged", file=sys.stderr)
    print(f"simulate: seeds={len(outcomes)} violations={len(violated)}")
    return 1 if violated else 0


def _report(outcome: Outcome) -> None:
    _FAILURES.mkdir(parents=True, exist_ok=True)
    kept = _FAILURES / f"{outcome.seed}.txt"
    kept.write_text("\n".join(outcome.trace) + "\n")
    print(*outcome.trace[-_SHOWN_LINES:], sep="\n", file=sys.stderr)
    for violation in outcome.violations:
        print(f"seed {outcome.seed}: {violation}", file=sys.stderr)
    print(f"all of it is in {kept.relative_to(_FAILURES.parents[2])}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
