"""The gateway's edge alone: it decides, holds and forwards to the upstream, with no service between."""

from collections.abc import Sequence

from bench.dozen import dozen
from bench.figures import Effort, Figure
from bench.loads import MODELS, figures, run
from bench.path import System, direct
from bench.upstream import upstream


def measure(effort: Effort) -> Sequence[Figure]:
    """Send it requests, beside the upstream itself; nothing is billed, so holds stay until they expire."""
    with upstream() as server, dozen(server, MODELS, without_chat=True) as platform:
        subject = System(
            "gateway", platform.port("gateway"), {"gateway": platform.pid("gateway")}, platform.requests
        )
        found = run(effort, subject, [direct(server)])
    return figures("gateway", found, subject)
