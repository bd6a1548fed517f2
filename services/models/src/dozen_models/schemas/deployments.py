"""The deployments of the seed file."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, HttpUrl, model_validator
from pydantic_core import PydanticCustomError

from dozen_models.domain.catalogue import Deployment, Upstream

Service = Literal["chat", "completion", "embeddings", "images", "audio"]

_PROXIES: tuple[Service, ...] = ("chat", "completion")
"""The services that send requests to an upstream."""


def fault(message: str) -> PydanticCustomError:
    """Say what is wrong."""
    return PydanticCustomError("seed", "{message}", {"message": message})


def _public(url: HttpUrl) -> HttpUrl:
    if url.username or url.password:
        raise fault("The URL is published and must not hold a user or password")
    return url


def _base(url: HttpUrl) -> HttpUrl:
    if url.query or url.fragment:
        raise fault("A base URL has neither a query nor a fragment")
    if found := re.search(r"/v\d+[a-z]*/*$", url.path or ""):
        raise fault(f"The base URL is without the version: leave out {found[0].strip('/')}")
    return url


PublicUrl = Annotated[HttpUrl, AfterValidator(_public)]
BaseUrl = Annotated[PublicUrl, AfterValidator(_base)]


class Strict(BaseModel):
    """A part of the file."""

    model_config = ConfigDict(extra="forbid", strict=True)


class SeedUpstream(Strict):
    """The inference server behind a deployment."""

    format: Literal["openai", "anthropic", "gemini"] = "openai"
    url: BaseUrl | None = None
    model: str = Field("", pattern=r"^([A-Za-z0-9][A-Za-z0-9._:@/-]*)?$", max_length=256)
    # The name of a file in a mounted secret.
    secret: str = Field("", pattern=r"^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?)?$", max_length=64)
    max_requests: int = Field(0, ge=0, le=100_000)

    @model_validator(mode="after")
    def _of_the_pod(self) -> "SeedUpstream":
        if self.url is None and self.format != "openai":
            raise fault(f"One that speaks {self.format} needs a url: the server in the pod speaks openai")
        if self.url is None and self.secret:
            raise fault("A secret needs a url: the server in the pod is asked without one")
        return self

    def read(self) -> Upstream:
        """Give it as the domain has it."""
        url = str(self.url).rstrip("/") if self.url else ""
        return Upstream(self.format, url, self.model, self.secret, self.max_requests)


class SeedDeployment(Strict):
    """One place where a model is served."""

    # Ids travel in a header, separated by commas.
    id: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)
    service: Service
    address: PublicUrl
    health_url: PublicUrl | None = None
    priority: int = Field(ge=0, le=1000)
    weight: int = Field(ge=0, le=10_000)
    upstream: SeedUpstream = SeedUpstream()

    @model_validator(mode="after")
    def _of_its_service(self) -> "SeedDeployment":
        if self.service not in _PROXIES and self.upstream != SeedUpstream():
            raise fault(f"{self.service} has no upstream; only {' and '.join(_PROXIES)} have")
        if self.service != "chat" and self.upstream.format != "openai":
            raise fault(f"Only chat speaks {self.upstream.format}; {self.service} speaks openai")
        return self

    def read(self) -> Deployment:
        """Give it as the domain has it."""
        return Deployment(
            self.id,
            self.service,
            str(self.address).rstrip("/"),
            str(self.health_url) if self.health_url else "",
            self.priority,
            self.weight,
            self.upstream.read(),
        )
