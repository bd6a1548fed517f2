"""What is kept of responses and conversations."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

import msgspec

from dozen_chat.domain.items import Item

MAX_CHAIN = 1000
"""Responses that may follow each other by `previous_response_id`."""
MAX_CONVERSATION_ITEMS = 5000
MAX_ADDED = 20
"""Items that may be put into a conversation at once."""


class StoredItem(NamedTuple):
    """An item as JSON."""

    id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Turn:
    """A response that has ended, as it is written."""

    account: str
    response_id: str
    previous_id: str | None
    conversation_id: str | None
    known: int
    """The position in the conversation up to which the model knew it; 0 without one."""
    context_bytes: int
    """Length of all items as JSON that belong together, those of earlier responses too."""
    input: bytes
    output: bytes
    body: bytes | None
    """The response as JSON without its output; None where it is not to be stored."""
    added: Sequence[StoredItem] = ()
    """What goes into the conversation."""


@dataclass(frozen=True, slots=True)
class Link:
    """A stored response, as one of a chain."""

    previous_id: str | None
    conversation_id: str | None
    known: int
    context_bytes: int
    input: bytes
    output: bytes


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation without its items."""

    id: str
    created_at: datetime
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which items to list."""

    limit: int = 20
    after: str | None = None
    """The id of the last item of the page before."""
    ascending: bool = False


def new_conversation_id() -> str:
    """Make the id of a conversation."""
    return f"conv_{uuid.uuid4().hex}"


def read_item(item: bytes) -> Item:
    """Read a stored item."""
    found: Item = msgspec.json.decode(item, type=Item)
    return found


def read_stored(items: bytes) -> list[Item]:
    """Read a list of stored items."""
    return msgspec.json.decode(items, type=list[Item])


def write_items(items: Sequence[Item]) -> bytes:
    """Write a list of items to store."""
    return msgspec.json.encode(items)


def store(items: Sequence[Item]) -> list[StoredItem]:
    """Write items, each by itself."""
    return [StoredItem(item.id, msgspec.json.encode(item)) for item in items]


def page(items: Sequence[Item], selection: Selection) -> tuple[list[Item], bool] | None:
    """Give a page of items that are in order, and whether there are more; None where `after` is not one."""
    ordered = list(items) if selection.ascending else list(reversed(items))
    start = 0
    if selection.after is not None:
        places = [index for index, item in enumerate(ordered) if item.id == selection.after]
        if not places:
            return None
        start = places[0] + 1
    return ordered[start : start + selection.limit], len(ordered) > start + selection.limit
