"""What a model is to know besides a request: earlier responses, and conversations."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

import msgspec

from dozen_chat.domain.items import Item, ItemReference, common_part
from dozen_chat.domain.response_request import ResponseRequest
from dozen_chat.domain.turns import (
    MAX_CHAIN,
    MAX_CONVERSATION_ITEMS,
    Conversation,
    Link,
    read_item,
    read_stored,
)
from dozen_chat.errors import (
    ContextTooLong,
    ConversationLocked,
    ConversationNotFound,
    ItemNotFound,
    PreviousResponseNotFound,
)

HOLD = timedelta(seconds=30)
"""So long a conversation is held for a response after its replica was last heard of."""
HOLD_AGAIN = HOLD / 3

# Stored items say more of a message than a chat completion does, as much as this where it is short.
_STORED = 4


class Chains(Protocol):
    """The stored responses, as they go on from each other."""

    async def find(self, account: str, response_id: str) -> tuple[bytes, bytes] | None:
        """Give a response without its output, and that."""
        ...

    async def find_links(self, account: str, response_ids: Sequence[str]) -> dict[str, Link]:
        """Give those of these responses that there are."""
        ...

    async def chain(self, account: str, response_id: str, most_bytes: int) -> list[Link]:
        """Give a response and those that it goes on from, the first one first; deleted ones too, inside.

        Nothing where there is no such response, or where all that was said is more than `most_bytes`.
        """
        ...


class ConversationTurns(Protocol):
    """Conversations, as responses are given in them."""

    async def find(self, account: str, conversation_id: str) -> Conversation | None:
        """Give a conversation."""
        ...

    async def begin_turn(self, account: str, conversation_id: str, response_id: str, hold: timedelta) -> bool:
        """Let a response be given in a conversation; False where another is, or where there is none."""
        ...

    async def keep_turns(self, response_ids: Sequence[str], hold: timedelta) -> None:
        """Say that these responses are still being given."""
        ...

    async def end_turn(self, response_id: str) -> None:
        """Let others be given in the conversation of a response that adds nothing to it."""
        ...

    async def size(self, conversation_id: str) -> tuple[int, int]:
        """Count the items of a conversation, and their bytes."""
        ...

    async def items(self, conversation_id: str, until: int | None = None) -> list[tuple[int, bytes]]:
        """Give the items of a conversation and their positions, or those up to a position."""
        ...

    async def find_items(self, account: str, item_ids: Sequence[str]) -> dict[str, bytes]:
        """Give those of these items that are in conversations of an account."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """What was said before a response."""

    items: Sequence[Item] = ()
    size: int = 0
    """Length as JSON."""
    conversation_id: str | None = None
    known: int = 0
    """The position in the conversation up to which it was said."""


@dataclass
class Contexts:
    """Finds what was said before; `most_bytes` is how large a chat completion may be."""

    chains: Chains
    conversations: ConversationTurns
    most_bytes: int
    _held: set[str] = field(default_factory=set)
    """Responses that are being given in conversations here."""

    @property
    def most_stored_bytes(self) -> int:
        """How much may be stored that belongs together."""
        return self.most_bytes * _STORED

    @asynccontextmanager
    async def open(self, account: str, request: ResponseRequest, response_id: str) -> AsyncIterator[Context]:
        """Give the context of a request; no other response is given in its conversation meanwhile."""
        if request.previous_response_id:
            yield await self._continued(account, request.previous_response_id)
        elif conversation_id := request.conversation_id:
            await self._begin_turn(account, conversation_id, response_id)
            self._held.add(response_id)
            try:
                yield await self._conversation(conversation_id)
            finally:
                self._held.discard(response_id)
                await self.conversations.end_turn(response_id)
        else:
            yield Context()

    async def keep_turns(self) -> None:
        """Hold the conversations on in which responses are being given."""
        if self._held:
            await self.conversations.keep_turns(list(self._held), HOLD)

    async def chain(self, account: str, response_id: str) -> list[Link]:
        """Give a response and those that it goes on from, the first one first; nothing without it."""
        links = await self.chains.chain(account, response_id, self.most_stored_bytes)
        too_long = len(links) >= MAX_CHAIN
        if too_long or (not links and await self.chains.find(account, response_id)):
            raise ContextTooLong()
        return [] if links and links[0].previous_id else links  # where one between is gone, so are all

    async def said_before(self, link: Link) -> list[Item]:
        """Give what was said in the conversation of a response before it."""
        if link.conversation_id is None:
            return []
        found = await self._stored(link.conversation_id, link.known)
        return [read_item(body) for _, body in found]

    async def resolve(self, account: str, items: Sequence[Item | ItemReference]) -> list[Item]:
        """Put stored items in the place of references to them."""
        wanted = {item.id for item in items if isinstance(item, ItemReference)}
        found: dict[str, bytes] = {}
        if wanted:
            found = await self.conversations.find_items(account, list(wanted))
            found |= await self._in_responses(account, wanted - found.keys())
        resolved: list[Item] = []
        for item in items:
            if not isinstance(item, ItemReference):
                resolved.append(item)
            elif (body := found.get(item.id)) is not None:
                resolved.append(read_item(body))
            else:
                raise ItemNotFound(f"Item with id '{item.id}' not found.", param="input")
        return resolved

    async def _in_responses(self, account: str, item_ids: set[str]) -> dict[str, bytes]:
        response_ids = {f"resp_{common}" for item_id in item_ids if (common := common_part(item_id))}
        if not response_ids:
            return {}
        links = await self.chains.find_links(account, list(response_ids))
        items = [
            item
            for link in links.values()
            for said in (link.input, link.output)
            for item in read_stored(said)
        ]
        return {item.id: msgspec.json.encode(item) for item in items if item.id in item_ids}

    async def _continued(self, account: str, response_id: str) -> Context:
        links = await self.chain(account, response_id)
        if not links:
            raise PreviousResponseNotFound(
                f"Previous response with id '{response_id}' not found.", param="previous_response_id"
            )
        said = [item for link in links for part in (link.input, link.output) for item in read_stored(part)]
        return Context([*await self.said_before(links[0]), *said], links[-1].context_bytes)

    async def _begin_turn(self, account: str, conversation_id: str, response_id: str) -> None:
        if await self.conversations.begin_turn(account, conversation_id, response_id, HOLD):
            return
        if await self.conversations.find(account, conversation_id) is None:
            raise ConversationNotFound(
                f"Conversation with id '{conversation_id}' not found.", param="conversation"
            )
        raise ConversationLocked(param="conversation")

    async def _conversation(self, conversation_id: str) -> Context:
        found = await self._stored(conversation_id)
        return Context(
            [read_item(body) for _, body in found],
            sum(len(body) for _, body in found),
            conversation_id,
            found[-1][0] if found else 0,
        )

    async def _stored(self, conversation_id: str, until: int | None = None) -> list[tuple[int, bytes]]:
        items, size = await self.conversations.size(conversation_id)
        if items > MAX_CONVERSATION_ITEMS or size > self.most_stored_bytes:
            raise ContextTooLong()
        return await self.conversations.items(conversation_id, until)
