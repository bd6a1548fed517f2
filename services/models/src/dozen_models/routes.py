"""HTTP routes of the models service."""

from fastapi import APIRouter

from dozen_models.schemas import ModelList, ModelObject
from dozen_models.service import CatalogueService


def router(catalogue: CatalogueService) -> APIRouter:
    """Serve `/v1/models`."""
    routes = APIRouter()

    @routes.get("/v1/models")
    async def list_models() -> ModelList:
        return ModelList(data=[ModelObject.of(model) for model in await catalogue.models()])

    @routes.get("/v1/models/{model_id:path}")
    async def retrieve_model(model_id: str) -> ModelObject:
        return ModelObject.of(await catalogue.model(model_id))

    return routes
