"""A real vLLM on the CPU with a tiny model."""

import os
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dozen_inference.server_metrics import ServerLoad, read_load
from dozen_local.environment import inherited_environment
from dozen_local.ports import free_port
from dozen_local.processes import Process, Program, http_ok
from vllm.tiny_llama import CONTEXT

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".dozen/vllm/bin/python"
MODEL = "tiny"
BLOCK_TOKENS = 128
BLOCKS = 64
"""Of the KV cache: so few that one server cannot keep the prefixes of all requests."""
START_SECONDS = 180.0

_ARGUMENTS = (
    "--served-model-name", MODEL, "--max-model-len", str(CONTEXT), "--max-num-seqs", "4", "--enforce-eager",
    "--enable-prompt-tokens-details", "--enable-auto-tool-choice", "--tool-call-parser", "hermes",
    "--block-size", str(BLOCK_TOKENS), "--num-gpu-blocks-override", str(BLOCKS), "--host", "127.0.0.1",
)  # fmt: skip


@dataclass(frozen=True)
class Vllm:
    """A running server."""

    url: str

    def metrics(self) -> bytes:
        """Read what it says of itself."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            body: bytes = answer.read()
            return body

    def load(self) -> ServerLoad:
        """Read how much it has to do, as the services read it."""
        return read_load(self.metrics())

    def count(self, name: str) -> float:
        """Read a counter or gauge."""
        samples = [
            line.split() for line in self.metrics().decode().splitlines() if line.startswith(f"{name}{{")
        ]
        assert samples, f"vLLM has no metric {name}"
        return sum(float(value) for _, value in samples)


def is_installed() -> bool:
    """Tell whether `scripts/vllm` was run."""
    return PYTHON.exists()


def make_model(folder: Path) -> Path:
    """Make the model, once; give where it is."""
    program = Path(__file__).with_name("tiny_llama.py")
    subprocess.run([PYTHON, program, folder], check=True, capture_output=True, timeout=START_SECONDS)
    return folder


@contextmanager
def run_vllm(model: Path, name: str) -> Iterator[Vllm]:
    """Run a server for the block, with its files beside the model's."""
    port, files = free_port(), model.parent
    cores = len(os.sched_getaffinity(0))
    program = Program(
        name,
        # A step takes all cores; the tests, which measure times, come first.
        ["nice", "-n", "10", str(PYTHON), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model),
         *_ARGUMENTS, "--port", str(port)],
        lambda: http_ok(port, "/health"),
        environment={
            **inherited_environment(),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            # With its default, `auto`, it starves all other processes for seconds.
            "VLLM_CPU_OMP_THREADS_BIND": f"0-{min(cores, 2) - 1}",
        },
        stop_seconds=20,
    )  # fmt: skip
    process = Process(program, files / f"{name}.pid", files / f"{name}.log")
    process.start()
    try:
        process.wait_until_ready(START_SECONDS)
        yield Vllm(f"http://127.0.0.1:{port}")
    finally:
        process.stop()
        process.kill()  # what is left of it
