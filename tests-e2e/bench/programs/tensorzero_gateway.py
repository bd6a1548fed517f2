"""Serves HTTP with the gateway in TensorZero's package, whose Python runs this."""

import signal
import sys
from pathlib import Path

from tensorzero.tensorzero import (  # type: ignore[import-not-found]  # in an environment of its own
    _start_http_gateway,
)


def main(configuration: str, told: Path) -> None:
    """Serve until terminated; write the base URL once that is known."""
    gateway = _start_http_gateway(
        config_file=configuration, clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False
    )
    unfinished = told.with_suffix(".new")
    unfinished.write_text(str(gateway.base_url))
    unfinished.rename(told)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main(sys.argv[1], Path(sys.argv[2]))
