"""The platform that the journeys use: the one at DOZEN_URL with DOZEN_KEY, else one of their own."""

import os
from collections.abc import AsyncIterator, Iterator

import pytest
from openai import AsyncOpenAI

from catalogue import further_models
from dozen_local.environment import read_env
from dozen_local.platform import Platform
from journey import Access, Operator, temporary_platform


@pytest.fixture(scope="session")
def local_platform() -> Iterator[Platform]:
    """A platform of twelve processes, started for the journeys and deleted after them."""
    if "DOZEN_URL" in os.environ:
        pytest.skip("this journey looks behind the gateway, so it needs a platform of its own")
    with temporary_platform(models=further_models) as platform:
        yield platform


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
