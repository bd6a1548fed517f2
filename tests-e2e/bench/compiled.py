"""The programs of the benchmarks that are written in C, built where they are first needed."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from bench.figures import CannotMeasure
from dozen_local.layout import REPOSITORY

SOURCES = Path(__file__).with_name("programs")
_BUILT = REPOSITORY / ".dozen" / "bench" / "bin"


def compiled(name: str) -> Path:
    """Give the program of that name, built anew where its source has changed."""
    source = SOURCES / f"{name}.c"
    program = _BUILT / f"{name}-{hashlib.sha256(source.read_bytes()).hexdigest()[:12]}"
    if program.exists():
        return program
    if sys.platform != "linux":
        raise CannotMeasure("the upstream and the load of these benchmarks run on Linux alone (epoll)")
    compiler = shutil.which("cc")
    if compiler is None:
        raise CannotMeasure("there is no C compiler; on Debian and Ubuntu: apt-get install gcc libc6-dev")
    _BUILT.mkdir(parents=True, exist_ok=True)
    unfinished = program.with_suffix(".new")
    command = [compiler, "-O2", "-Wall", "-Wextra", "-o", str(unfinished), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CannotMeasure(f"{source} cannot be compiled:\n{done.stderr}")
    unfinished.rename(program)
    return program
