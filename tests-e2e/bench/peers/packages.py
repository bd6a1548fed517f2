"""Packages of other proxies, each in an environment of its own below `.dozen/bench/peers`."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.figures import CannotMeasure
from bench.servers import plain_environment
from dozen_local.layout import REPOSITORY

_HOME = REPOSITORY / ".dozen" / "bench" / "peers"
_UV = REPOSITORY / "scripts" / "uv"
_INSTALL_SECONDS = 600.0


def python_package(name: str, requirement: str) -> Path:
    """Install a package from the Python registry, unless it is there, and give its environment."""
    home = _HOME / name
    python = ["--python", str(home)]
    return _installed(
        home,
        requirement,
        [_UV, "venv", "--quiet", "--python", sys.executable, str(home)],
        [_UV, "pip", "install", "--quiet", "--only-binary", ":all:", *python, requirement],
    )


def node_package(name: str, requirement: str) -> Path:
    """Install a package from the registry of Node, unless it is there, and give the folder of packages."""
    npm = shutil.which("npm")
    if npm is None:
        raise CannotMeasure("there is no npm")
    home = _HOME / name
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    command = [npm, "install", "--prefix", str(home), *options, requirement]
    return _installed(home, requirement, command) / "node_modules"


def _installed(home: Path, requirement: str, *commands: Sequence[str | Path]) -> Path:
    stamp = home / ".installed"
    if stamp.exists() and stamp.read_text() == requirement:
        return home
    print(f"  installing {requirement} into {home}", file=sys.stderr, flush=True)
    shutil.rmtree(home, ignore_errors=True)
    home.parent.mkdir(parents=True, exist_ok=True)
    for command in commands:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS,
                env=plain_environment(),
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise CannotMeasure(f"{requirement} is not installed after {_INSTALL_SECONDS:.0f} s") from None
        if done.returncode:
            words = (done.stderr or done.stdout).strip().splitlines()
            raise CannotMeasure(f"{requirement} cannot be installed: {' '.join(words[-3:])[:300]}")
    stamp.write_text(requirement)
    return home
