"""Conversations: items that are kept together, for responses to be given in."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

from dozen_chat.domain.invalid import check_metadata
from dozen_chat.domain.items import Item, ItemReference, new_hex, number, read_items
from dozen_chat.domain.turns import (
    MAX_ADDED,
    MAX_CONVERSATION_ITEMS,
    Conversation,
    Selection,
    StoredItem,
    new_conversation_id,
    store,
)
from dozen_chat.errors import ContextTooLong, ConversationLocked, ConversationNotFound, ItemNotFound
from dozen_chat.service.contexts import Contexts
from dozen_chat.service.validity import validly

_DELETION_BATCH = 50


class Conversations(Protocol):
    """The conversations and their items."""

    async def create(
        self, account: str, conversation_id: str, metadata: Mapping[str, str], items: Sequence[StoredItem]
    ) -> Conversation:
        """Begin a conversation with these items."""
        ...

    async def find(self, account: str, conversation_id: str) -> Conversation | None:
        """Give a conversation."""
        ...

    async def update(
        self, account: str, conversation_id: str, metadata: Mapping[str, str]
    ) -> Conversation | None:
        """Give a conversation other metadata."""
        ...

    async def delete(self, account: str, conversation_id: str) -> bool:
        """Delete a conversation, its items and the responses in it; False where there is none."""
        ...

    async def size(self, conversation_id: str) -> tuple[int, int]:
        """Count the items of a conversation, and their bytes."""
        ...

    async def page(
        self, account: str, conversation_id: str, selection: Selection
    ) -> tuple[list[StoredItem], bool] | None:
        """Give a page of items, and whether there are more; None where `after` is none of them."""
        ...

    async def add_items(self, account: str, conversation_id: str, items: Sequence[StoredItem]) -> bool:
        """Put items into a conversation; False where a response is being given in it, or it is not there."""
        ...

    async def find_item(self, account: str, conversation_id: str, item_id: str) -> bytes | None:
        """Give an item of a conversation."""
        ...

    async def delete_item(self, account: str, conversation_id: str, item_id: str) -> bool:
        """Take an item out of a conversation; False where it is not in it."""
        ...

    async def forget(self, older_than: timedelta, limit: int) -> int:
        """Drop conversations that were last used so long ago; return how many."""
        ...


class ConversationsService:
    """Keeps conversations; each belongs to one account, and no other one is told of it."""

    def __init__(self, conversations: Conversations, contexts: Contexts) -> None:
        self._conversations = conversations
        self._contexts = contexts

    async def create(
        self, account: str, metadata: dict[str, str] | None, items: Sequence[Any] | None
    ) -> Conversation:
        """Begin a conversation."""
        with validly():
            checked = check_metadata(metadata)
        stored = await self._new_items(account, items or ())
        return await self._conversations.create(account, new_conversation_id(), checked, stored)

    async def find(self, account: str, conversation_id: str) -> Conversation:
        """Give a conversation."""
        return _found(await self._conversations.find(account, conversation_id), conversation_id)

    async def update(
        self, account: str, conversation_id: str, metadata: dict[str, str] | None
    ) -> Conversation:
        """Give a conversation other metadata."""
        with validly():
            checked = check_metadata(metadata)
        return _found(await self._conversations.update(account, conversation_id, checked), conversation_id)

    async def delete(self, account: str, conversation_id: str) -> None:
        """Delete a conversation, its items and the responses in it."""
        if not await self._conversations.delete(account, conversation_id):
            raise _not_found(conversation_id)

    async def page(
        self, account: str, conversation_id: str, selection: Selection
    ) -> tuple[Sequence[StoredItem], bool]:
        """Give a page of items, and whether there are more."""
        await self.find(account, conversation_id)
        found = await self._conversations.page(account, conversation_id, selection)
        if found is None:
            raise ItemNotFound(f"Item with id '{selection.after}' not found.", param="after")
        return found

    async def add_items(
        self, account: str, conversation_id: str, items: Sequence[Any]
    ) -> Sequence[StoredItem]:
        """Put items into a conversation in which no response is being given."""
        await self.find(account, conversation_id)
        stored = await self._new_items(account, items)
        count, size = await self._conversations.size(conversation_id)
        size += sum(len(item.body) for item in stored)
        if count + len(stored) > MAX_CONVERSATION_ITEMS or size > self._contexts.most_stored_bytes:
            raise ContextTooLong("The conversation has as many items as it may have.", param="items")
        if not await self._conversations.add_items(account, conversation_id, stored):
            raise ConversationLocked()
        return stored

    async def find_item(self, account: str, conversation_id: str, item_id: str) -> bytes:
        """Give an item as JSON."""
        found = await self._conversations.find_item(account, conversation_id, item_id)
        if found is None:
            raise ItemNotFound(f"Item with id '{item_id}' not found in this conversation.")
        return found

    async def delete_item(self, account: str, conversation_id: str, item_id: str) -> Conversation:
        """Take an item out of a conversation; give that."""
        conversation = await self.find(account, conversation_id)
        if not await self._conversations.delete_item(account, conversation_id, item_id):
            raise ItemNotFound(f"Item with id '{item_id}' not found in this conversation.")
        return conversation

    async def forget(self, older_than: timedelta) -> None:
        """Drop conversations that were last used so long ago."""
        while await self._conversations.forget(older_than, _DELETION_BATCH):
            pass

    async def _new_items(self, account: str, given: Sequence[Any]) -> list[StoredItem]:
        with validly():
            read: list[Item | ItemReference] = read_items(given, "items", most=MAX_ADDED)
        items = await self._contexts.resolve(account, read)
        number(items, new_hex())
        return store(items)


def _found(conversation: Conversation | None, conversation_id: str) -> Conversation:
    if conversation is None:
        raise _not_found(conversation_id)
    return conversation


def _not_found(conversation_id: str) -> ConversationNotFound:
    return ConversationNotFound(f"Conversation with id '{conversation_id}' not found.")
