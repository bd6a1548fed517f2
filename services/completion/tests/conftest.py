"""What the tests of the completion service share."""

import sys
from collections.abc import Iterator

import pytest

from dozen_chassis.admission import Admission
from dozen_completion.service import OPERATION
from dozen_local.environment import inherited_environment
from dozen_local.ports import free_port
from dozen_local.processes import Process, Program, http_ok
from dozen_testing.http import Signer

MODEL = "smollm2-135m-instruct"
FACTS = {"model": MODEL, "deployments": "smollm2-completion", "price": "price-1"}


@pytest.fixture
def signer() -> Signer:
    """Admits requests for the model that the sidecar has."""
    return Signer(b"k" * 32, facts=FACTS)


@pytest.fixture
def admission() -> Admission:
    """An admitted request."""
    return Admission("acme", "key1", "req_1", OPERATION, FACTS)


@pytest.fixture(scope="session")
def sidecar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a real inference server, llama.cpp with a small model."""
    port, directory = free_port(), tmp_path_factory.mktemp("sidecar")
    program = Program(
        "sidecar",
        [sys.executable, "-m", "dozen_local.sidecar", "--port", str(port)],
        lambda: http_ok(port, "/health"),
        environment=inherited_environment(),
    )
    process = Process(program, directory / "sidecar.pid", directory / "sidecar.log")
    process.start()
    try:
        process.wait_until_ready()
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop()
