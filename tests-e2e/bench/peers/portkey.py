"""Portkey's gateway, written for Node: no keys of its own, no record of requests."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from bench.figures import CannotMeasure
from bench.path import System, with_headers
from bench.peers.packages import node_package
from bench.servers import running
from bench.upstream import Upstream
from dozen_local.ports import free_port
from dozen_local.processes import http_ok

_PACKAGE = "@portkey-ai/gateway"
_VERSION = "1.15.2"


@contextmanager
def run(upstream: Upstream) -> Iterator[System]:
    """Run it for the block."""
    node, port = shutil.which("node"), free_port()
    if node is None:
        raise CannotMeasure("there is no node")
    program = node_package("portkey", f"{_PACKAGE}@{_VERSION}") / _PACKAGE / "build" / "start-server.js"
    command = [node, str(program), f"--port={port}", "--headless"]
    headers = {
        "authorization": "Bearer none",
        "x-portkey-provider": "openai",
        "x-portkey-custom-host": f"{upstream.url}/v1",
    }
    with running("portkey", command, is_ready=lambda: http_ok(port, "/")) as pid:
        yield System("portkey", port, {"portkey": pid}, with_headers(headers), slow_streams=16, is_ours=False)
