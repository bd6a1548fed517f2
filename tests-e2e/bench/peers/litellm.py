"""LiteLLM's proxy with a master key alone.

Its mode with a database, which keeps keys, budgets and spend as Dozen does, needs an engine that no package
carries; so it does less here than in earnest.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.loads import MODELS
from bench.path import System, with_headers
from bench.peers.packages import python_package
from bench.servers import running
from bench.upstream import Upstream
from dozen_local.ports import free_port
from dozen_local.processes import http_ok

_PACKAGE = "litellm[proxy]==1.106.1"
_KEY = "sk-bench"
_ALONE = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR"}
"""Prices from the package, nothing from files around it, no line a request."""


@contextmanager
def run(upstream: Upstream) -> Iterator[System]:
    """Run it for the block, with one worker."""
    home, port = python_package("litellm", _PACKAGE), free_port()
    behind = {"api_base": f"{upstream.url}/v1", "api_key": "none"}
    configuration = {
        "model_list": [
            {"model_name": model, "litellm_params": {"model": f"openai/{model}", **behind}}
            for model in MODELS
        ],
        "general_settings": {"master_key": _KEY},
    }
    with TemporaryDirectory(prefix="dozen-litellm-") as directory:
        file = Path(directory) / "config.yaml"
        file.write_text(json.dumps(configuration))  # which is YAML too
        command = [str(home / "bin" / "litellm"), "--config", str(file), "--host", "127.0.0.1"]
        command += ["--port", str(port), "--num_workers", "1", "--telemetry", "False"]
        with running(
            "litellm",
            command,
            is_ready=lambda: http_ok(port, "/health/liveliness"),
            environment=_ALONE,
            ready_seconds=120,
        ) as pid:
            headers = {"authorization": f"Bearer {_KEY}"}
            yield System(
                "litellm", port, {"litellm": pid}, with_headers(headers), slow_streams=8, is_ours=False
            )
