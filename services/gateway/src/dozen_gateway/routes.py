"""HTTP routes of the gateway itself."""

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query, Response

from dozen_chassis.http import Admitted
from dozen_gateway.schemas import (
    CreatedKey,
    CreateKeyRequest,
    DeletedKey,
    KeyList,
    KeyObject,
    RotateKeyRequest,
    UpdateKeyRequest,
)
from dozen_gateway.service.keys import Issued, KeyService

IdempotencyKey = Annotated[str | None, Header()]


def router(keys: KeyService) -> APIRouter:
    """Serve `/v1/keys`."""
    routes = APIRouter()

    async def check_administrator(admission: Admitted) -> None:
        await keys.check_administrator(admission.account, admission.key)

    administers = [Depends(check_administrator)]

    @routes.post("/v1/keys", dependencies=administers)
    async def create_key(
        body: CreateKeyRequest,
        admission: Admitted,
        response: Response,
        idempotency_key: IdempotencyKey = None,
    ) -> CreatedKey:
        return _created(await keys.create(admission.account, body.terms(), idempotency_key), response)

    @routes.get("/v1/keys")
    async def list_keys(
        admission: Admitted,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        after: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_]{1,64}$")] = None,
        order: Literal["asc", "desc"] = "desc",
    ) -> KeyList:
        found, has_more = await keys.list(
            admission.account, limit=limit, after=after, newest_first=order == "desc"
        )
        return KeyList.of(found, has_more)

    @routes.get("/v1/keys/{key_id}")
    async def get_key(key_id: str, admission: Admitted) -> KeyObject:
        return KeyObject.of(await keys.get(admission.account, key_id))

    @routes.post("/v1/keys/{key_id}", dependencies=administers)
    async def update_key(key_id: str, body: UpdateKeyRequest, admission: Admitted) -> KeyObject:
        return KeyObject.of(await keys.update(admission.account, key_id, body.changes()))

    @routes.post("/v1/keys/{key_id}/rotate", dependencies=administers)
    async def rotate_key(
        key_id: str,
        admission: Admitted,
        response: Response,
        body: RotateKeyRequest | None = None,
        idempotency_key: IdempotencyKey = None,
    ) -> CreatedKey:
        grace = (body or RotateKeyRequest()).grace_seconds
        issued = await keys.rotate(admission.account, key_id, grace=grace, idempotency_key=idempotency_key)
        return _created(issued, response)

    @routes.delete("/v1/keys/{key_id}", dependencies=administers)
    async def delete_key(key_id: str, admission: Admitted) -> DeletedKey:
        key = await keys.revoke(admission.account, key_id)
        return DeletedKey(id=key.id)

    return routes


def _created(issued: Issued, response: Response) -> CreatedKey:
    if issued.is_replayed:
        response.headers["idempotent-replayed"] = "true"
    return CreatedKey(**KeyObject.of(issued.key).model_dump(), value=issued.text)
