"""The seed file, and the bodies of the models API, as OpenAI has them."""

from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from dozen_models.domain import MODEL_ID, MODEL_ID_LENGTH, Deployment, Model, ModelCard, Offer
from dozen_models.errors import InvalidSeed

Capability = Literal[
    "chat", "completion", "embeddings", "images.analyses", "audio.transcriptions", "audio.speech"
]
Service = Literal["chat", "completion", "embeddings", "images", "audio"]
Unit = Literal[
    "input_tokens", "cached_input_tokens", "output_tokens", "images", "audio_milliseconds", "characters"
]
NanoCredits = Annotated[int, Field(ge=0, le=10**15)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _SeedDeployment(_Strict):
    # Ids travel in a header, separated by commas.
    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)
    service: Service
    address: HttpUrl
    health_url: HttpUrl
    priority: int = Field(ge=0, le=1000)
    weight: int = Field(ge=0, le=10_000)

    @field_validator("address", "health_url")
    @classmethod
    def _without_credentials(cls, url: HttpUrl) -> HttpUrl:
        if url.username or url.password:
            raise PydanticCustomError("url", "The URL is published and must not hold a user or password")
        return url

    def deployment(self) -> Deployment:
        address, health_url = str(self.address).rstrip("/"), str(self.health_url)
        return Deployment(self.id, self.service, address, health_url, self.priority, self.weight)


class _SeedModel(_Strict):
    id: str = Field(pattern=f"^{MODEL_ID}$", max_length=MODEL_ID_LENGTH)
    owned_by: str = Field(min_length=1, max_length=128)
    capabilities: list[Capability] = Field(min_length=1)
    context_length: int = Field(ge=0, le=2**31)
    prices: dict[Unit, NanoCredits] = Field(min_length=1)
    deployments: list[_SeedDeployment] = Field(min_length=1, max_length=100)

    def offer(self) -> Offer:
        deployments = sorted(
            (deployment.deployment() for deployment in self.deployments),
            key=lambda deployment: (deployment.priority, deployment.id),
        )
        card = ModelCard(
            self.id, self.owned_by, tuple(self.capabilities), self.context_length, tuple(deployments)
        )
        return Offer(card, dict(self.prices.items()))


class _Seed(_Strict):
    models: list[_SeedModel]

    @model_validator(mode="after")
    def _no_id_twice(self) -> "_Seed":
        for kind, ids in (
            ("model", [model.id for model in self.models]),
            ("deployment", [deployment.id for model in self.models for deployment in model.deployments]),
        ):
            if twice := sorted({id for id in ids if ids.count(id) > 1}):
                message = f"The {kind} id {', '.join(twice)} is there more than once"
                raise PydanticCustomError("unique", "{message}", {"message": message})
        return self


def parse_seed(text: str) -> list[Offer]:
    """Read a seed file; raise `InvalidSeed` with all that is wrong with it."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidSeed(f"The seed file is not valid YAML: {error}") from error
    try:
        return [model.offer() for model in _Seed.model_validate(content).models]
    except ValidationError as error:
        faults = [f"{_place(fault['loc'], content)}: {fault['msg']}" for fault in error.errors()]
        raise InvalidSeed("\n  ".join(["The seed file is not valid:", *faults])) from None


def _place(path: tuple[str | int, ...], content: Any) -> str:
    """Write a path with ids for numbers, such as `models[gpt-x].deployments[gpt-x-1].weight`."""
    place = ""
    for key in path:
        try:
            content = content[key]
        except (KeyError, IndexError, TypeError):
            content = None
        if isinstance(key, int):
            place += f"[{content['id'] if isinstance(content, dict) and 'id' in content else key}]"
        else:
            place += f".{key}" if place else key
    return place or "the file"


class ModelObject(BaseModel):
    """A model, with our additions to OpenAI's four fields."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    capabilities: list[str]
    context_length: int
    pricing: dict[str, int]
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
            health=model.health.value,
        )


class ModelList(BaseModel):
    """Answer of `GET /v1/models`; it has no pages."""

    object: Literal["list"] = "list"
    data: list[ModelObject]
