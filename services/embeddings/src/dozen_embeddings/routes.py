"""HTTP routes of the embeddings service."""

from fastapi import APIRouter, Request, Response

from dozen_chassis.http import Admitted
from dozen_embeddings.domain import DIMENSIONS
from dozen_embeddings.errors import DimensionsNotSupported
from dozen_embeddings.schemas import (
    EmbeddingsRequest,
    ModerationList,
    ModerationsRequest,
    embeddings_response,
)
from dozen_embeddings.service.embeddings import EmbeddingsService
from dozen_embeddings.service.moderations import ModerationService
from dozen_inference.departure import unless_client_leaves


def router(embeddings: EmbeddingsService, moderations: ModerationService) -> APIRouter:
    """Serve `/v1/embeddings` and `/v1/moderations`."""
    routes = APIRouter()

    @routes.post("/v1/embeddings")
    async def create_embeddings(body: EmbeddingsRequest, admission: Admitted, request: Request) -> Response:
        if body.dimensions not in (None, DIMENSIONS):
            raise DimensionsNotSupported(
                f"This model gives vectors of {DIMENSIONS} dimensions; cutting them would make them useless.",
                param="dimensions",
            )
        found = await unless_client_leaves(request.receive, embeddings.embed(admission, body.input))
        return Response(
            embeddings_response(body.model, found, body.encoding_format), media_type="application/json"
        )

    @routes.post("/v1/moderations")
    async def create_moderation(
        body: ModerationsRequest, admission: Admitted, request: Request
    ) -> ModerationList:
        found = await unless_client_leaves(request.receive, moderations.moderate(body.input))
        return ModerationList.of(admission.request_id, found)

    return routes
