"""HTTP routes of the Conversations API."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from dozen_chassis.http import Admitted
from dozen_chat.domain.turns import Selection
from dozen_chat.schemas import (
    ConversationCreation,
    ConversationObject,
    ConversationUpdate,
    DeletedConversation,
    ItemCreation,
    conversation_object,
    item_list,
)
from dozen_chat.service.conversations import ConversationsService

JSON = "application/json"


def router(conversations: ConversationsService) -> APIRouter:
    """Serve `/v1/conversations`."""
    routes = APIRouter()

    @routes.post("/v1/conversations")
    async def create_conversation(
        admission: Admitted, body: ConversationCreation | None = None
    ) -> ConversationObject:
        body = body or ConversationCreation()
        return conversation_object(await conversations.create(admission.account, body.metadata, body.items))

    @routes.get("/v1/conversations/{conversation_id}")
    async def retrieve_conversation(conversation_id: str, admission: Admitted) -> ConversationObject:
        return conversation_object(await conversations.find(admission.account, conversation_id))

    @routes.post("/v1/conversations/{conversation_id}")
    async def update_conversation(
        conversation_id: str, body: ConversationUpdate, admission: Admitted
    ) -> ConversationObject:
        updated = await conversations.update(admission.account, conversation_id, body.metadata)
        return conversation_object(updated)

    @routes.delete("/v1/conversations/{conversation_id}")
    async def delete_conversation(conversation_id: str, admission: Admitted) -> DeletedConversation:
        await conversations.delete(admission.account, conversation_id)
        return DeletedConversation(id=conversation_id)

    @routes.post("/v1/conversations/{conversation_id}/items")
    async def create_items(conversation_id: str, body: ItemCreation, admission: Admitted) -> Response:
        added = await conversations.add_items(admission.account, conversation_id, body.items)
        return Response(item_list(added), media_type=JSON)

    @routes.get("/v1/conversations/{conversation_id}/items")
    async def list_items(
        conversation_id: str,
        admission: Admitted,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[str | None, Query(max_length=64)] = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> Response:
        selection = Selection(limit, after, order == "asc")
        items, has_more = await conversations.page(admission.account, conversation_id, selection)
        return Response(item_list(items, has_more), media_type=JSON)

    @routes.get("/v1/conversations/{conversation_id}/items/{item_id}")
    async def retrieve_item(conversation_id: str, item_id: str, admission: Admitted) -> Response:
        item = await conversations.find_item(admission.account, conversation_id, item_id)
        return Response(item, media_type=JSON)

    @routes.delete("/v1/conversations/{conversation_id}/items/{item_id}")
    async def delete_item(conversation_id: str, item_id: str, admission: Admitted) -> ConversationObject:
        return conversation_object(
            await conversations.delete_item(admission.account, conversation_id, item_id)
        )

    return routes
