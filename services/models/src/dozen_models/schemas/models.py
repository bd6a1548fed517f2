"""The bodies of the models API, as OpenAI has them."""

from typing import Literal

from pydantic import BaseModel

from dozen_models.domain.catalogue import Model


class ModelObject(BaseModel):
    """A model, with our additions to OpenAI's four fields."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    capabilities: list[str]
    context_length: int
    pricing: dict[str, int]
    """Unit to nano-credits for one."""
    fallbacks: list[str]
    health: str

    @classmethod
    def of(cls, model: Model) -> "ModelObject":
        """Shape a model of the catalogue."""
        return cls(
            id=model.card.id,
            created=int(model.created_at.timestamp()),
            owned_by=model.card.owned_by,
            capabilities=list(model.card.capabilities),
            context_length=model.card.context_length,
            pricing=dict(model.price.nano_credits),
            fallbacks=list(model.card.fallbacks),
            health=model.health.value,
        )


class ModelList(BaseModel):
    """Answer of `GET /v1/models`; it has no pages."""

    object: Literal["list"] = "list"
    data: list[ModelObject]
