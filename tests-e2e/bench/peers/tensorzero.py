"""TensorZero's gateway, written in Rust, as its Python package carries it: no keys, no record of requests."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from bench.compiled import SOURCES
from bench.loads import MODELS
from bench.path import System, with_headers
from bench.peers.packages import python_package
from bench.servers import running
from bench.upstream import Upstream

_PACKAGE = "tensorzero==2026.6.0"
_PATH = "/chat/completions"


@contextmanager
def run(upstream: Upstream) -> Iterator[System]:
    """Run it for the block."""
    home = python_package("tensorzero", _PACKAGE)
    with TemporaryDirectory(prefix="dozen-tensorzero-") as directory:
        file, told = Path(directory) / "tensorzero.toml", Path(directory) / "url"
        file.write_text(_configuration(upstream))
        program = [str(home / "bin" / "python"), str(SOURCES / "tensorzero_gateway.py")]
        with running("tensorzero", [*program, str(file), str(told)], is_ready=told.exists) as pid:
            url = urlsplit(told.read_text())
            assert url.port is not None
            requests = with_headers({}, f"{url.path.rstrip('/')}{_PATH}", "tensorzero::model_name::{}")
            yield System("tensorzero", url.port, {"tensorzero": pid}, requests, is_ours=False)


def _configuration(upstream: Upstream) -> str:
    lines = ["[gateway]", "observability.enabled = false"]
    for model in MODELS:
        lines += [
            f"[models.{json.dumps(model)}]",
            'routing = ["mock"]',
            f"[models.{json.dumps(model)}.providers.mock]",
            'type = "openai"',
            f"model_name = {json.dumps(model)}",
            f'api_base = "{upstream.url}/v1/"',
            'api_key_location = "none"',
        ]
    return "\n".join(lines) + "\n"
