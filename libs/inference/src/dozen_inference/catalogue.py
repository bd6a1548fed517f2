"""The deployments of the catalogue, as a serving service keeps them."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any

from google.protobuf.message import Message

from dozen.models.v1.models_events_pb2 import ModelRegistered
from dozen_chassis.events import Delivery
from dozen_chassis.postgres import Repository
from dozen_inference.places import Deployment, Places

CHANNEL = "deployments"
"""Where the replicas of a service tell each other that the catalogue has changed."""


class DeploymentRepository(Repository):
    """The table `deployments` of a serving service, and when each model was registered."""

    async def save(self, model: str, deployments: list[Deployment], registered_at: datetime) -> None:
        """Keep the deployments of a model in place of those it had, unless a later registration is kept."""
        async with self.transaction() as tx:
            newer = await tx.db.fetchval(
                "insert into registrations (model_id, registered_at) values ($1, $2)"
                " on conflict (model_id) do update set registered_at = excluded.registered_at"
                " where registrations.registered_at < excluded.registered_at returning true",
                model,
                registered_at,
            )
            if newer is None:
                return
            await tx.db.execute("delete from deployments where model_id = $1", model)
            await tx.db.executemany(
                "insert into deployments (id, model_id, address, format, url, upstream_model, secret,"
                " max_requests) values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (id) do update set"
                " model_id = excluded.model_id, address = excluded.address, format = excluded.format,"
                " url = excluded.url, upstream_model = excluded.upstream_model, secret = excluded.secret,"
                " max_requests = excluded.max_requests",
                [
                    (one.id, one.model, one.address, one.format, one.url, one.upstream_model, one.secret,
                     one.max_requests)
                    for one in deployments
                ],
            )  # fmt: skip
            await tx.notify(CHANNEL, model)

    async def deployments(self) -> dict[str, Deployment]:
        """Give all, by id."""
        rows = await self.db.fetch(
            "select id, model_id, address, format, url, upstream_model, secret, max_requests from deployments"
        )
        return {row["id"]: Deployment(*row) for row in rows}


class Catalogue:
    """Keeps the deployments of one service, and lets every replica know of them."""

    def __init__(self, service: str, repository: DeploymentRepository, places: Places) -> None:
        self._service = service
        self._repository = repository
        self._places = places

    async def register(self, event: ModelRegistered, registered_at: datetime) -> None:
        """Take over a model, whole."""
        deployments = [
            Deployment(
                id=one.id,
                model=event.model.id,
                address=one.address.rstrip("/"),
                format=one.upstream.format,
                url=one.upstream.url.rstrip("/"),
                upstream_model=one.upstream.model,
                secret=one.upstream.secret,
                max_requests=one.upstream.max_requests,
            )
            for one in event.model.deployments
            if one.service == self._service
        ]
        await self._repository.save(event.model.id, deployments, registered_at)

    async def follow(self, changes: AsyncGenerator[object, None]) -> None:
        """Read all whenever any replica has changed something, without end."""
        async with aclosing(changes):
            async for _ in changes:
                self._places.learn(await self._repository.deployments())


async def on_model_registered(event: ModelRegistered, delivery: Delivery, catalogue: Catalogue) -> None:
    """Take over where a model is."""
    await catalogue.register(event, delivery.published_at)


HANDLERS: Mapping[type[Message], Callable[[Any, Delivery, Any], Awaitable[None]]] = {
    ModelRegistered: on_model_registered,
}
