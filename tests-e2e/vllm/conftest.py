"""The servers, started when the first test asks for them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from vllm.server import Vllm, is_installed, make_model, run_vllm


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model with random weights."""
    if not is_installed():
        pytest.skip("the real vLLM is not installed here; scripts/vllm installs it")
    return make_model(tmp_path_factory.mktemp("vllm") / "model")


@pytest.fixture(scope="session")
def vllm(tiny_model: Path) -> Iterator[Vllm]:
    """A real vLLM; ready within a minute or so."""
    with run_vllm(tiny_model, "vllm") as server:
        yield server


@pytest.fixture(scope="session")
def second_vllm(tiny_model: Path, vllm: Vllm) -> Iterator[Vllm]:
    """Another one beside it."""
    with run_vllm(tiny_model, "second-vllm") as server:
        yield server


@pytest.fixture
def service_package(request: pytest.FixtureRequest) -> str | None:
    """The package of the service under test, as the module names it."""
    package: str | None = getattr(request.module, "PACKAGE", None)
    return package
