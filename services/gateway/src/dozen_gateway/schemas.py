"""Bodies of the gateway's HTTP API."""

from collections.abc import Sequence
from typing import Literal

import msgspec
from pydantic import BaseModel, Field

from dozen_gateway.domain.keys import ApiKey


class CreateKeyRequest(BaseModel):
    """Body of `POST /v1/keys`."""

    name: str = Field(min_length=1, max_length=100)


class KeyObject(BaseModel):
    """A key without its secret."""

    id: str
    object: Literal["api_key"] = "api_key"
    name: str
    created_at: int

    @classmethod
    def of(cls, key: ApiKey) -> "KeyObject":
        """Describe a key."""
        return cls(id=key.id, name=key.name, created_at=int(key.created_at.timestamp()))


class CreatedKey(KeyObject):
    """A key with its whole text, which is shown only when it is made."""

    value: str


class KeyList(BaseModel):
    """A page of keys."""

    object: Literal["list"] = "list"
    data: list[KeyObject]
    first_id: str | None
    last_id: str | None
    has_more: bool

    @classmethod
    def of(cls, keys: Sequence[ApiKey], has_more: bool) -> "KeyList":
        """Describe a page."""
        data = [KeyObject.of(key) for key in keys]
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, first_id=first, last_id=last, has_more=has_more)


class DeletedKey(BaseModel):
    """Answer to `DELETE /v1/keys/{id}`."""

    id: str
    object: Literal["api_key"] = "api_key"
    deleted: Literal[True] = True


class DecisionFacts(msgspec.Struct):
    """The facts of a request, named as in `dozen.gateway.v1.RequestFacts`."""

    method: str
    path: str
    client_address: str = ""
    body_bytes: int = 0
    model: str | None = None
    stream: bool | None = None
    max_tokens: int | None = None
    choices: int | None = None


class DecisionRequest(msgspec.Struct):
    """Body of `POST /internal/decisions`."""

    facts: DecisionFacts
    api_key: str | None = None
    request_id: str | None = None
