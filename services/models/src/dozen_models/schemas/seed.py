"""The seed file."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, StringConstraints, ValidationError, model_validator

from dozen_models.domain.catalogue import MODEL_ID, MODEL_ID_LENGTH, ModelCard, Offer, find_circle
from dozen_models.errors import InvalidSeed
from dozen_models.schemas.deployments import SeedDeployment, Strict, fault

Capability = Literal[
    "chat", "completion", "embeddings", "images.analyses", "audio.transcriptions", "audio.speech"
]
Unit = Literal[
    "input_tokens", "cached_input_tokens", "output_tokens", "cache_hits", "images", "audio_milliseconds",
    "characters",
]  # fmt: skip
NanoCredits = Annotated[int, Field(ge=0, le=10**15)]
ModelId = Annotated[str, StringConstraints(pattern=f"^{MODEL_ID}$", max_length=MODEL_ID_LENGTH)]

_LONGEST_CACHING = 30 * 24 * 3600


class _SeedModel(Strict):
    id: ModelId
    owned_by: str = Field(min_length=1, max_length=128)
    capabilities: list[Capability] = Field(min_length=1)
    context_length: int = Field(ge=0, le=2**31)
    prices: dict[Unit, NanoCredits] = Field(min_length=1)
    deployments: list[SeedDeployment] = Field(min_length=1, max_length=100)
    fallbacks: list[ModelId] = Field(default=[], max_length=10)
    cache_seconds: int = Field(0, ge=0, le=_LONGEST_CACHING)
    content_filter: bool = False

    def offer(self) -> Offer:
        deployments = sorted(
            (deployment.read() for deployment in self.deployments),
            key=lambda deployment: (deployment.priority, deployment.id),
        )
        card = ModelCard(
            self.id,
            self.owned_by,
            tuple(self.capabilities),
            self.context_length,
            tuple(deployments),
            tuple(self.fallbacks),
            self.cache_seconds,
            self.content_filter,
        )
        return Offer(card, dict(self.prices.items()))


class _Seed(Strict):
    models: list[_SeedModel]

    @model_validator(mode="after")
    def _fits_together(self) -> "_Seed":
        faults = [*_twice(self.models)] or [*_useless_fallbacks(self.models)]
        circle = find_circle({model.id: model.fallbacks for model in self.models})
        if not faults and circle:
            faults = [f"Models fall back in a circle: {' to '.join(circle)}"]
        if faults:
            raise fault("; ".join(faults))
        return self


def _twice(models: list[_SeedModel]) -> Iterator[str]:
    for kind, ids in (
        ("model", [model.id for model in models]),
        ("deployment", [deployment.id for model in models for deployment in model.deployments]),
    ):
        if twice := sorted({id for id in ids if ids.count(id) > 1}):
            yield f"The {kind} id {', '.join(twice)} is there more than once"


def _useless_fallbacks(models: list[_SeedModel]) -> Iterator[str]:
    known = {model.id: set(model.capabilities) for model in models}
    for model in models:
        for fallback in model.fallbacks:
            if fallback == model.id:
                yield f"{model.id} falls back to itself"
            elif fallback not in known:
                yield f"{model.id} falls back to {fallback}, which is not there"
            elif not known[fallback] & set(model.capabilities):
                yield f"{model.id} falls back to {fallback}, which can do nothing of what it can"
            elif model.fallbacks.count(fallback) > 1:
                yield f"{model.id} falls back to {fallback} more than once"


def parse_seed(text: str) -> list[Offer]:
    """Read a seed file; raise `InvalidSeed` with all that is wrong with it."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InvalidSeed(f"The seed file is not valid YAML: {error}") from error
    try:
        return [model.offer() for model in _Seed.model_validate(content).models]
    except ValidationError as error:
        faults = [f"{_place(found['loc'], content)}: {found['msg']}" for found in error.errors()]
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
