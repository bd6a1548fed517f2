"""What the tests of the chat service share."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from google.protobuf.message import Message

from dozen_chassis.admission import Admission
from dozen_chat.domain.turns import MAX_CHAIN, Conversation, Link, Selection, StoredItem, Turn
from dozen_chat.repository.conversations import ConversationRepository
from dozen_chat.repository.requests import RequestRepository
from dozen_chat.repository.responses import ResponseRepository
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

    async def emit(self, event: Message, *, may_merge: bool = False) -> None:
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


@dataclass
class FakeConversations:
    """Conversations in memory; time passes only as it is told to."""

    owned: dict[str, tuple[str, Conversation]] = field(default_factory=dict)
    said: dict[str, list[tuple[int, StoredItem]]] = field(default_factory=dict)
    turns: dict[str, str] = field(default_factory=dict)
    """The response that is being given in each."""
    held_on: list[str] = field(default_factory=list)
    _positions: Iterator[int] = field(default_factory=lambda: count(1))

    def append(self, conversation_id: str, items: Sequence[StoredItem]) -> None:
        self.said[conversation_id] += [(next(self._positions), item) for item in items]

    def _owns(self, account: str, conversation_id: str) -> bool:
        return self.owned.get(conversation_id, ("",))[0] == account

    async def create(
        self, account: str, conversation_id: str, metadata: Mapping[str, str], items: Sequence[StoredItem]
    ) -> Conversation:
        conversation = Conversation(conversation_id, datetime.now(UTC), dict(metadata))
        self.owned[conversation_id], self.said[conversation_id] = (account, conversation), []
        self.append(conversation_id, items)
        return conversation

    async def find(self, account: str, conversation_id: str) -> Conversation | None:
        return self.owned[conversation_id][1] if self._owns(account, conversation_id) else None

    async def update(
        self, account: str, conversation_id: str, metadata: Mapping[str, str]
    ) -> Conversation | None:
        if not self._owns(account, conversation_id):
            return None
        conversation = replace(self.owned[conversation_id][1], metadata=dict(metadata))
        self.owned[conversation_id] = account, conversation
        return conversation

    async def delete(self, account: str, conversation_id: str) -> bool:
        if not self._owns(account, conversation_id):
            return False
        del self.owned[conversation_id], self.said[conversation_id]
        return True

    async def begin_turn(self, account: str, conversation_id: str, response_id: str, hold: timedelta) -> bool:
        if not self._owns(account, conversation_id) or conversation_id in self.turns:
            return False
        self.turns[conversation_id] = response_id
        return True

    async def keep_turns(self, response_ids: Sequence[str], hold: timedelta) -> None:
        self.held_on += response_ids

    async def end_turn(self, response_id: str) -> None:
        self.turns = {key: turn for key, turn in self.turns.items() if turn != response_id}

    async def items(self, conversation_id: str, until: int | None = None) -> list[tuple[int, bytes]]:
        said = self.said.get(conversation_id, [])
        return [(place, item.body) for place, item in said if until is None or place <= until]

    async def size(self, conversation_id: str) -> tuple[int, int]:
        said = self.said.get(conversation_id, [])
        return len(said), sum(len(item.body) for _, item in said)

    async def page(
        self, account: str, conversation_id: str, selection: Selection
    ) -> tuple[list[StoredItem], bool] | None:
        items = [item for _, item in self.said[conversation_id]]
        items = items if selection.ascending else items[::-1]
        ids = [item.id for item in items]
        if selection.after is not None and selection.after not in ids:
            return None
        start = 0 if selection.after is None else ids.index(selection.after) + 1
        return items[start : start + selection.limit], len(items) > start + selection.limit

    async def add_items(self, account: str, conversation_id: str, items: Sequence[StoredItem]) -> bool:
        if not self._owns(account, conversation_id) or conversation_id in self.turns:
            return False
        self.append(conversation_id, items)
        return True

    async def find_items(self, account: str, item_ids: Sequence[str]) -> dict[str, bytes]:
        mine = [key for key in self.said if self._owns(account, key)]
        found = {item.id: item.body for key in mine for _, item in self.said[key]}
        return {item_id: found[item_id] for item_id in item_ids if item_id in found}

    async def find_item(self, account: str, conversation_id: str, item_id: str) -> bytes | None:
        said = self.said[conversation_id] if self._owns(account, conversation_id) else []
        return next((item.body for _, item in said if item.id == item_id), None)

    async def delete_item(self, account: str, conversation_id: str, item_id: str) -> bool:
        if await self.find_item(account, conversation_id, item_id) is None:
            return False
        said = self.said[conversation_id]
        self.said[conversation_id] = [(place, item) for place, item in said if item.id != item_id]
        return True

    async def forget(self, older_than: timedelta, limit: int) -> int:
        forgotten = list(self.owned)[:limit] if older_than <= timedelta() else []
        for conversation_id in forgotten:
            del self.owned[conversation_id], self.said[conversation_id]
        return len(forgotten)


@dataclass
class FakeResponses:
    """Stored responses in memory."""

    conversations: FakeConversations
    turns: dict[str, Turn] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, as it is at first, what is put is written."""
    waiting: list["asyncio.Future[None]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate.set()

    async def put(self, record: Turn) -> None:
        async def write() -> None:
            await self.gate.wait()
            await self.write([record])

        self.waiting.append(asyncio.ensure_future(write()))
        await asyncio.shield(self.waiting[-1])

    async def write(self, turns: Sequence[Turn]) -> None:
        for turn in turns:
            if turn.conversation_id is not None and turn.conversation_id not in self.conversations.owned:
                continue
            if turn.body is not None:
                self.turns[turn.response_id] = turn
            if turn.conversation_id is not None:
                self.conversations.append(turn.conversation_id, turn.added)
                await self.conversations.end_turn(turn.response_id)

    def _visible(self, account: str, response_id: str) -> Turn | None:
        turn = self.turns.get(response_id)
        return turn if turn and turn.account == account and response_id not in self.deleted else None

    async def find(self, account: str, response_id: str) -> tuple[bytes, bytes] | None:
        turn = self._visible(account, response_id)
        return (turn.body or b"", turn.output) if turn else None

    async def find_links(self, account: str, response_ids: Sequence[str]) -> dict[str, Link]:
        return {found: _link(turn) for found in response_ids if (turn := self._visible(account, found))}

    async def chain(self, account: str, response_id: str, most_bytes: int) -> list[Link]:
        turn, links = self._visible(account, response_id), list[Link]()
        if turn is not None and turn.context_bytes > most_bytes:
            return []
        while turn is not None and len(links) < MAX_CHAIN:
            links.insert(0, _link(turn))
            turn = self.turns.get(turn.previous_id or "")
        return links

    def _is_needed(self, response_id: str) -> bool:
        return any(turn.previous_id == response_id for turn in self.turns.values())

    async def delete(self, account: str, response_id: str) -> bool:
        if self._visible(account, response_id) is None:
            return False
        self.deleted.add(response_id)
        if not self._is_needed(response_id):
            del self.turns[response_id]
        return True

    async def forget(self, older_than: timedelta, limit: int) -> int:
        old = [one for one in self.turns if one in self.deleted or older_than <= timedelta()]
        forgotten = [one for one in old if not self._is_needed(one)][:limit]
        for response_id in forgotten:
            del self.turns[response_id]
        return len(forgotten)


def _link(turn: Turn) -> Link:
    return Link(
        turn.previous_id, turn.conversation_id, turn.known, turn.context_bytes, turn.input, turn.output
    )


@pytest.fixture
def fake_responses() -> FakeResponses:
    return FakeResponses(FakeConversations())


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.integration)])
def stored(request: pytest.FixtureRequest, fake_responses: FakeResponses) -> tuple[Any, Any]:
    """Responses and conversations, in memory and in PostgreSQL."""
    if request.param == "fake":
        return fake_responses, fake_responses.conversations
    database = request.getfixturevalue("database")
    return ResponseRepository(database), ConversationRepository(database)
