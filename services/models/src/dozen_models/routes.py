"""HTTP routes of the models service."""

from fastapi import APIRouter

from dozen_chassis.admission import Admission
from dozen_chassis.http import Admitted
from dozen_models.domain.catalogue import Scope
from dozen_models.schemas.models import ModelList, ModelObject
from dozen_models.service.catalogue import CatalogueService


def router(catalogue: CatalogueService) -> APIRouter:
    """Serve `/v1/models`."""
    routes = APIRouter()

    @routes.get("/v1/models")
    async def list_models(admission: Admitted) -> ModelList:
        models = await catalogue.models(_scope(admission))
        return ModelList(data=[ModelObject.of(model) for model in models])

    @routes.get("/v1/models/{model_id:path}")
    async def retrieve_model(model_id: str, admission: Admitted) -> ModelObject:
        return ModelObject.of(await catalogue.model(model_id, _scope(admission)))

    return routes


def _scope(admission: Admission) -> Scope:
    """Read the models that the key may use; where the gateway names none, it may use all."""
    models = admission.facts.get("models")
    return None if models is None else frozenset(models.split(","))
