"""The platform that the journeys use: the one at DOZEN_URL with DOZEN_KEY, else one of their own."""

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from openai import AsyncOpenAI

from dozen_local.credentials import Credentials
from dozen_local.environment import read_env
from dozen_local.layout import SERVICE_PORTS, Layout
from dozen_local.platform import Platform
from dozen_local.ports import is_free
from journey import Access, Operator, ignore


def free_port_offset() -> int:
    """Find an offset at which no port of a deployment is taken."""
    ports = [port for pair in SERVICE_PORTS.values() for port in pair]
    return next(
        offset for offset in range(10_000, 50_000, 1_000) if all(is_free(port + offset) for port in ports)
    )


@pytest.fixture(scope="session")
def local_platform() -> Iterator[Platform]:
    """A platform of twelve processes, started for the journeys and deleted after them."""
    if "DOZEN_URL" in os.environ:
        pytest.skip("this journey looks behind the gateway, so it needs a platform of its own")
    with tempfile.TemporaryDirectory(prefix="dozen-e2e-") as directory:
        home = Path(directory)
        home.chmod(0o755)  # the user that PostgreSQL runs as passes through
        layout = Layout(home, free_port_offset())
        platform = Platform(layout, Credentials.open(layout.credentials_file))
        layout.save()
        try:
            platform.up(ignore)
            yield platform
        finally:
            platform.down()
            platform.postgres.remove()


@pytest.fixture(scope="session")
def access(request: pytest.FixtureRequest) -> Access:
    """Address and key of the platform."""
    if "DOZEN_URL" in os.environ:
        return Access(os.environ["DOZEN_URL"].rstrip("/"), os.environ["DOZEN_KEY"])
    platform: Platform = request.getfixturevalue("local_platform")
    variables = read_env(platform.layout.env_file)
    if not variables:
        pytest.fail("the platform wrote no env file")
    return Access(variables["DOZEN_URL"], variables["OPENAI_API_KEY"])


@pytest.fixture
async def client(access: Access) -> AsyncIterator[AsyncOpenAI]:
    """The official client with the key of the first account."""
    async with access.openai() as client:
        yield client


@pytest.fixture
def operator(local_platform: Platform) -> Operator:
    """The operator of the local platform."""
    return Operator(local_platform)
