"""HTTP routes of the Responses API."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from starlette.types import ASGIApp

from dozen_chassis.admission import Admission
from dozen_chassis.errors import InvalidRequest
from dozen_chassis.http import Admitted
from dozen_chat.domain.turns import Selection
from dozen_chat.schemas import DeletedResponse, item_list
from dozen_chat.service.responses import RESPONSES_PATH, ResponsesService
from dozen_inference import cache
from dozen_inference.endpoint import CompletionEndpoint
from dozen_inference.generation import Answer
from dozen_inference.settlement import Settlements

JSON = "application/json"

_NO_REPLAY = "Only responses that are given in the background can be streamed again; leave out 'stream'."


def hot_paths(responses: ResponsesService, settlements: Settlements[Any]) -> dict[str, ASGIApp]:
    """Serve `POST /v1/responses`."""

    def create(admission: Admission, body: bytes, headers: dict[bytes, bytes]) -> Answer:
        return responses.create(admission, body, cache.header(headers))

    return {RESPONSES_PATH: CompletionEndpoint(create, settlements)}


def router(responses: ResponsesService) -> APIRouter:
    """Serve `/v1/responses/{response_id}` and what is below."""
    routes = APIRouter()

    @routes.get("/v1/responses/{response_id}")
    async def retrieve_response(response_id: str, admission: Admitted, stream: bool = False) -> Response:
        if stream:
            raise InvalidRequest(_NO_REPLAY, param="stream")
        return Response(await responses.find(admission.account, response_id), media_type=JSON)

    @routes.delete("/v1/responses/{response_id}")
    async def delete_response(response_id: str, admission: Admitted) -> DeletedResponse:
        await responses.delete(admission.account, response_id)
        return DeletedResponse(id=response_id)

    @routes.post("/v1/responses/{response_id}/cancel")
    async def cancel_response(response_id: str, admission: Admitted) -> Response:
        return Response(await responses.cancel(admission.account, response_id), media_type=JSON)

    @routes.get("/v1/responses/{response_id}/input_items")
    async def list_input_items(
        response_id: str,
        admission: Admitted,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[str | None, Query(max_length=64)] = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> Response:
        selection = Selection(limit, after, order == "asc")
        items, has_more = await responses.input_items(admission.account, response_id, selection)
        return Response(item_list(items, has_more), media_type=JSON)

    return routes
