"""Bodies of the Responses and Conversations APIs, as OpenAI has them."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from pydantic import BaseModel, Field

from dozen_chat.domain.items import Item
from dozen_chat.domain.turns import Conversation, StoredItem

Metadata = Annotated[dict[str, str], Field(max_length=16)]


class ConversationCreation(BaseModel):
    """The body of `POST /v1/conversations`."""

    items: list[Any] | None = None
    metadata: Metadata | None = None


class ConversationUpdate(BaseModel):
    """The body of `POST /v1/conversations/{conversation_id}`."""

    metadata: Metadata | None


class ItemCreation(BaseModel):
    """The body of `POST /v1/conversations/{conversation_id}/items`."""

    items: Annotated[list[Any], Field(min_length=1)]


class ConversationObject(BaseModel):
    """A conversation."""

    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    metadata: dict[str, str]


class DeletedConversation(BaseModel):
    """The answer of `DELETE /v1/conversations/{conversation_id}`."""

    id: str
    object: Literal["conversation.deleted"] = "conversation.deleted"
    deleted: Literal[True] = True


class DeletedResponse(BaseModel):
    """The answer of `DELETE /v1/responses/{response_id}`."""

    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class _ItemList(msgspec.Struct):
    data: Sequence[Any]
    has_more: bool
    first_id: str | None
    last_id: str | None
    object: str = "list"


def conversation_object(conversation: Conversation) -> ConversationObject:
    """Write a conversation."""
    return ConversationObject(
        id=conversation.id,
        created_at=int(conversation.created_at.timestamp()),
        metadata=conversation.metadata,
    )


def item_list(items: Sequence[Item | StoredItem], has_more: bool = False) -> bytes:
    """Write a page of items; stored ones are JSON already."""
    data = [msgspec.Raw(item.body) if isinstance(item, StoredItem) else item for item in items]
    first, last = (items[0].id, items[-1].id) if items else (None, None)
    return msgspec.json.encode(_ItemList(data, has_more, first, last))
