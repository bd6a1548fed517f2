"""What the tests of the chat service share."""

import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
from google.protobuf.message import Message

from dozen_chassis.admission import Admission
from dozen_chat.repository.requests import RequestRepository
from dozen_chat.service.completions import OPERATION
from dozen_chat.service.log import Requests
from dozen_inference.outcome import Outcome
from dozen_local.environment import inherited_environment
from dozen_local.ports import free_port
from dozen_local.processes import Process, Program, http_ok
from dozen_testing.http import Signer

MODEL = "smollm2-135m-instruct"


@dataclass
class FakeRequests:
    """The log in memory."""

    outcomes: list[Outcome] = field(default_factory=list)
    events: list[Message] = field(default_factory=list)
    handled: set[str] = field(default_factory=set)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["FakeRequests"]:
        yield self

    async def record(self, outcomes: Sequence[Outcome]) -> None:
        self.outcomes += outcomes

    async def emit(self, event: Message) -> None:
        self.events.append(event)

    async def first_delivery(self, event_id: str) -> bool:
        first = event_id not in self.handled
        self.handled.add(event_id)
        return first

    async def is_handled(self, event_id: str) -> bool:
        return event_id in self.handled

    async def forget(self, older_than: timedelta, limit: int) -> int:
        forgotten = self.outcomes[:limit] if older_than <= timedelta() else []
        del self.outcomes[: len(forgotten)]
        return len(forgotten)


@pytest.fixture
def fake_requests() -> FakeRequests:
    return FakeRequests()


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.integration)])
def requests(request: pytest.FixtureRequest, fake_requests: FakeRequests) -> Requests:
    """The log, in memory and in PostgreSQL."""
    if request.param == "fake":
        return fake_requests
    return RequestRepository(request.getfixturevalue("database"))


@pytest.fixture
def signer() -> Signer:
    """Admits requests for the model that the sidecar has."""
    facts = {"model": MODEL, "deployments": "smollm2-chat", "price": "price-1"}
    return Signer(b"k" * 32, facts=facts)


@pytest.fixture
def admission() -> Admission:
    """An admitted request."""
    facts = {"model": MODEL, "deployments": "smollm2-chat", "price": "price-1"}
    return Admission("acme", "key1", "req_1", OPERATION, facts)


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
