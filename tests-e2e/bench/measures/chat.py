"""The chat service alone, with usage that it reports: requests come signed, as from the gateway."""

from collections.abc import Sequence

from bench.dozen import dozen
from bench.figures import Effort, Figure
from bench.loads import MODELS, figures, run
from bench.path import System, direct
from bench.upstream import upstream


def measure(effort: Effort) -> Sequence[Figure]:
    """Send it requests, beside the upstream itself."""
    with upstream() as server, dozen(server, MODELS) as platform:
        subject = System(
            "chat",
            platform.port("chat"),
            {"chat": platform.pid("chat")},
            platform.signed_requests,
            behind={name: platform.pid(name) for name in ("postgres", "nats")},
        )
        found = run(effort, subject, [direct(server)])
    return figures("chat", found, subject)
