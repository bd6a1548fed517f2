"""All SQL of the models service."""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from itertools import groupby
from operator import itemgetter

import asyncpg

from dozen_chassis.postgres import Repository
from dozen_models.domain.catalogue import Deployment, Model, ModelCard, Price, Upstream
from dozen_models.domain.health import Health, HealthState


class ModelsRepository(Repository):
    """The catalogue and the health of its deployments."""

    async def lock(self) -> None:
        """Keep others from changing or announcing the catalogue until this transaction ends."""
        await self.db.execute("lock table models in share row exclusive mode")

    async def models(self) -> list[Model]:
        """Give all models that are not retired, by id."""
        return await self._models()

    async def find(self, model_id: str) -> Model | None:
        """Give a model that is not retired."""
        found = await self._models(model_id)
        return found[0] if found else None

    async def register(self, card: ModelCard) -> datetime:
        """Make a model and its deployments what the card says; return when the model was created."""
        created_at: datetime = await self.db.fetchval(
            "insert into models (id, owned_by, capabilities, context_length, fallbacks, cache_seconds,"
            "  content_filter) values ($1, $2, $3, $4, $5, $6, $7)"
            " on conflict (id) do update set owned_by = excluded.owned_by,"
            "  capabilities = excluded.capabilities, context_length = excluded.context_length,"
            "  fallbacks = excluded.fallbacks, cache_seconds = excluded.cache_seconds,"
            "  content_filter = excluded.content_filter, retired_at = null"
            " returning created_at",
            card.id, card.owned_by, card.capabilities, card.context_length, card.fallbacks,
            card.cache_seconds, card.content_filter,
        )  # fmt: skip
        await self._retire_deployments(card.id, [deployment.id for deployment in card.deployments])
        await self.db.executemany(
            "insert into deployments (id, model_id, service, address, health_url, priority, weight,"
            "  upstream_format, upstream_url, upstream_model, upstream_secret, upstream_max_requests)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
            " on conflict (id) do update set model_id = excluded.model_id, service = excluded.service,"
            "  address = excluded.address, health_url = excluded.health_url,"
            "  priority = excluded.priority, weight = excluded.weight,"
            "  upstream_format = excluded.upstream_format, upstream_url = excluded.upstream_url,"
            "  upstream_model = excluded.upstream_model, upstream_secret = excluded.upstream_secret,"
            "  upstream_max_requests = excluded.upstream_max_requests, retired_at = null",
            [
                (one.id, card.id, one.service, one.address, one.health_url, one.priority, one.weight,
                 one.upstream.format, one.upstream.url, one.upstream.model, one.upstream.secret,
                 one.upstream.max_requests)
                for one in card.deployments
            ],
        )  # fmt: skip
        return created_at

    async def retire(self, model_id: str) -> None:
        """Take a model and its deployments out of the catalogue."""
        await self.db.execute("update models set retired_at = now() where id = $1", model_id)
        await self._retire_deployments(model_id, [])

    async def prices(self) -> list[tuple[str, Price]]:
        """Give every price that any model has or had, retired ones too, with the model's id, oldest first."""
        rows = await self.db.fetch(
            "select id, model_id, nano_credits, effective_from from prices"
            ' order by effective_from, model_id collate "C"'
        )
        return [
            (row["model_id"], Price(row["id"], json.loads(row["nano_credits"]), row["effective_from"]))
            for row in rows
        ]

    async def add_price(self, price_id: str, model_id: str, nano_credits: Mapping[str, int]) -> Price:
        """Give a model a new price from now on.

        The database's clock says when, and always later than the price before, so that the order of
        prices does not hang on the clocks of replicas.
        """
        effective_from = await self.db.fetchval(
            "insert into prices (id, model_id, nano_credits, effective_from)"
            " values ($1, $2, $3, greatest(clock_timestamp(),"
            "  (select max(effective_from) + interval '1 microsecond' from prices where model_id = $2)))"
            " returning effective_from",
            price_id, model_id, json.dumps(dict(nano_credits)),
        )  # fmt: skip
        return Price(price_id, dict(nano_credits), effective_from)

    async def change_health(self, deployment_id: str, health: Health, reason: str) -> HealthState | None:
        """Write a deployment's health and a row of its history.

        None where it had this health already, and where it is held down and this is not unhealthy. As with
        prices, the time is the database's and always later than the one before.
        """
        observed_at = await self.db.fetchval(
            "with changed as ("
            "  update deployments set health = $2, reason = $3,"
            "   observed_at = greatest(clock_timestamp(), observed_at + interval '1 microsecond')"
            "  where id = $1 and health <> $2 and retired_at is null"
            "   and ($2 = 'unhealthy' or held_until is null or held_until <= clock_timestamp())"
            "  returning id, health, reason, observed_at)"
            " insert into health_changes (deployment_id, health, reason, observed_at)"
            " select * from changed returning observed_at",
            deployment_id, health.value, reason,
        )  # fmt: skip
        return None if observed_at is None else HealthState(health, reason, observed_at)

    async def hold_down(self, deployment_id: str, seconds: float) -> None:
        """Keep a deployment from becoming anything but unhealthy for so long."""
        await self.db.execute(
            "update deployments set held_until = clock_timestamp() + $2"
            " where id = $1 and retired_at is null",
            deployment_id, timedelta(seconds=seconds),
        )  # fmt: skip

    async def release(self, deployment_id: str) -> None:
        """Hold a deployment down no longer."""
        await self.db.execute("update deployments set held_until = null where id = $1", deployment_id)

    async def forget_health_changes(self, older_than: timedelta, limit: int) -> int:
        """Drop the history before a time; return how many rows."""
        status: str = await self.db.execute(
            "delete from health_changes where id in ("
            "  select id from health_changes where observed_at < now() - $1::interval limit $2)",
            older_than, limit,
        )  # fmt: skip
        return int(status.split()[-1])

    async def _retire_deployments(self, model_id: str, kept: list[str]) -> None:
        # Should one come back, its health is found anew, and announced: by now that it is unknown.
        await self.db.execute(
            "update deployments set retired_at = now(), health = 'unknown', reason = '', held_until = null,"
            "  observed_at = greatest(clock_timestamp(), observed_at + interval '1 microsecond')"
            " where model_id = $1 and id <> all($2) and retired_at is null",
            model_id, kept,
        )  # fmt: skip

    async def _models(self, model_id: str | None = None) -> list[Model]:
        rows = await self.db.fetch(
            "select m.id, m.owned_by, m.capabilities, m.context_length, m.created_at, m.fallbacks,"
            "  m.cache_seconds, m.content_filter,"
            "  p.id as price_id, p.nano_credits, p.effective_from,"
            "  d.id as deployment_id, d.service, d.address, d.health_url, d.priority, d.weight,"
            "  d.upstream_format, d.upstream_url, d.upstream_model, d.upstream_secret,"
            "  d.upstream_max_requests, d.health, d.reason, d.observed_at"
            " from models m"
            " join lateral (select * from prices where model_id = m.id"
            "  order by effective_from desc limit 1) p on true"
            " left join deployments d on d.model_id = m.id and d.retired_at is null"
            " where m.retired_at is null and ($1::text is null or m.id = $1)"
            ' order by m.id collate "C", d.priority, d.id collate "C"',
            model_id,
        )
        return [_model(list(group)) for _, group in groupby(rows, itemgetter("id"))]


def _model(rows: list[asyncpg.Record]) -> Model:
    """Build a model from its rows, one for each deployment."""
    first, served = rows[0], [row for row in rows if row["deployment_id"] is not None]
    deployments = tuple(
        Deployment(
            row["deployment_id"], row["service"], row["address"], row["health_url"], row["priority"],
            row["weight"],
            Upstream(
                row["upstream_format"], row["upstream_url"], row["upstream_model"], row["upstream_secret"],
                row["upstream_max_requests"],
            ),
        )
        for row in served
    )  # fmt: skip
    return Model(
        ModelCard(
            first["id"], first["owned_by"], tuple(first["capabilities"]), first["context_length"],
            deployments, tuple(first["fallbacks"]), first["cache_seconds"], first["content_filter"],
        ),
        first["created_at"],
        Price(first["price_id"], json.loads(first["nano_credits"]), first["effective_from"]),
        {
            row["deployment_id"]: HealthState(Health(row["health"]), row["reason"], row["observed_at"])
            for row in served
        },
    )  # fmt: skip
