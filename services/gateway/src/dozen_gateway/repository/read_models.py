"""What a decision is made from, in the database."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import asyncpg
import msgspec

from dozen_chassis.postgres import FAILURES
from dozen_gateway.domain.holds import Settlement, Settlements
from dozen_gateway.domain.state import Account, Deployment, Model, Price, Snapshot
from dozen_gateway.repository.followed import CHANNEL, FollowedRepository
from dozen_gateway.repository.keys import read_keys
from dozen_gateway.repository.limits import account_limits
from dozen_gateway.repository.notices import Change, is_notice, notices, read_notice

log = logging.getLogger(__name__)

_RETRY_SECONDS = 0.5

# In one order, so that replicas do not wait for each other in a circle.
_SAVE_ACCOUNTS = """
    with newer as (
        insert into accounts (id, available_nano_credits, version)
        select * from unnest($1::text[], $2::bigint[], $3::bigint[]) order by 1
        on conflict (id) do update
        set available_nano_credits = excluded.available_nano_credits, version = excluded.version
        where accounts.version < excluded.version returning 1
    ), fresh as (
        insert into settlements (request_id, lease_id, leased_nano_credits, tokens)
        select * from unnest($4::text[], $5::text[], $6::bigint[], $7::bigint[]) order by 1
        on conflict do nothing returning 1
    )
    select pg_notify($8, told) from unnest($9::text[]) as told
    where exists (select from newer) or exists (select from fresh)
"""

Result = TypeVar("Result")


class ReadModelsRepository(FollowedRepository):
    """What other services have told of, and the reading of all that every replica follows."""

    async def save_accounts(
        self, accounts: Mapping[str, Account], settlements: Settlements | None = None
    ) -> None:
        """Keep the accounts whose version is newer than what is kept, and what became of requests.

        It is a single statement, and every replica is told all of it, so that none has to ask.
        """
        settled = settlements or {}
        changes: list[Change] = [*accounts.items(), *settled.items()]
        await self.db.execute(
            _SAVE_ACCOUNTS,
            list(accounts),
            [account.available_nano_credits for account in accounts.values()],
            [account.version for account in accounts.values()],
            list(settled),
            [one.lease_id for one in settled.values()],
            [one.leased_nano_credits for one in settled.values()],
            [one.tokens for one in settled.values()],
            CHANNEL,
            list(notices(changes)),
        )

    async def settlements(self, request_ids: Collection[str]) -> dict[str, Settlement]:
        """Give what became of those requests that are settled; wait for the database where it is away."""
        rows = await self._patiently(
            lambda: self.db.fetch("select * from settlements where request_id = any($1)", list(request_ids))
        )
        return {
            row["request_id"]: Settlement(row["lease_id"], row["leased_nano_credits"], row["tokens"])
            for row in rows
        }

    async def forget_settlements(self, older_than: timedelta, limit: int) -> int:
        """Drop settlements of that age; return how many."""
        status: str = await self.db.execute(
            "delete from settlements where request_id in"
            " (select request_id from settlements where settled_at < now() - $1::interval limit $2)",
            older_than, limit,
        )  # fmt: skip
        return int(status.split()[-1])

    async def beat(self) -> None:
        """Tell every replica nothing, so that it knows that it would hear of something."""
        await self.notify(CHANNEL, "{}")

    async def save_model(self, model: Model, registered_at: datetime) -> None:
        """Keep a model, unless a later registration of it is kept."""
        async with self.transaction() as tx:
            rows = await tx.db.fetch(
                "insert into models (id, capabilities, context_length, deployments, fallbacks, cache_seconds,"
                "  content_filter, registered_at)"
                " values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (id) do update"
                " set capabilities = excluded.capabilities, context_length = excluded.context_length,"
                "  deployments = excluded.deployments, fallbacks = excluded.fallbacks,"
                "  cache_seconds = excluded.cache_seconds, content_filter = excluded.content_filter,"
                "  registered_at = excluded.registered_at"
                " where models.registered_at < excluded.registered_at returning id",
                model.id,
                sorted(model.capabilities),
                model.context_length,
                json.dumps([asdict(deployment) for deployment in model.deployments]),
                model.fallbacks,
                model.cache_seconds,
                model.content_filter,
                registered_at,
            )
            await tx.tell_replicas("models", [row["id"] for row in rows])

    async def save_price(self, model_id: str, price: Price) -> None:
        """Keep a price of a model; one that is kept already stays as it is."""
        async with self.transaction() as tx:
            rows = await tx.db.fetch(
                "insert into prices (id, model_id, nano_credits, effective_from) values ($1, $2, $3, $4)"
                " on conflict do nothing returning model_id",
                price.id, model_id, json.dumps(dict(price.nano_credits)),
                datetime.fromtimestamp(price.effective_from, UTC),
            )  # fmt: skip
            await tx.tell_replicas("prices", [row["model_id"] for row in rows])

    async def save_health(self, deployment_id: str, usable: bool, observed_at: datetime) -> None:
        """Keep whether a deployment may take requests, unless a later observation is kept."""
        async with self.transaction() as tx:
            rows = await tx.db.fetch(
                "insert into deployment_health (deployment_id, usable, observed_at) values ($1, $2, $3)"
                " on conflict (deployment_id) do update"
                " set usable = excluded.usable, observed_at = excluded.observed_at"
                " where deployment_health.observed_at < excluded.observed_at returning deployment_id",
                deployment_id, usable, observed_at,
            )  # fmt: skip
            await tx.tell_replicas("usable", [row["deployment_id"] for row in rows])

    async def changes(self) -> AsyncIterator[Snapshot]:
        """Give all there is, and then each change that any replica makes, without end."""
        async for payload in self._database.listen(CHANNEL):
            changed = {} if payload is None else msgspec.json.decode(payload)
            if is_notice(changed):
                yield read_notice(changed)
            else:
                yield await self._patiently(partial(self.read, None if payload is None else changed))

    async def read(self, changed: Mapping[str, Collection[str]] | None = None) -> Snapshot:
        """Read what has changed, by kind and ids; without, everything."""

        def ids(kind: str) -> list[str] | None:
            return None if changed is None else list(changed.get(kind, ()))

        return Snapshot(
            whole=changed is None,
            keys={} if (keys := ids("keys")) == [] else await read_keys(self.db, keys),
            accounts={} if changed is not None else await self._accounts(),
            models=await self._models(ids("models")),
            prices=await self._prices(ids("prices")),
            usable=await self._usable(ids("usable")),
            account_limits=await account_limits(self.db, ids("account_limits")),
            settled=None if changed is None else {},  # they are only read for those who wait for them
        )

    async def _patiently(self, read: Callable[[], Awaitable[Result]]) -> Result:
        while True:
            try:
                return await read()
            except FAILURES as error:
                log.warning("reading the state has to wait: %r", error)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _fetch(self, query: str, ids: list[str] | None) -> list[asyncpg.Record]:
        """Run a query of the rows with these ids; None gives all of them."""
        return [] if ids == [] else await self.db.fetch(query, ids)

    async def _accounts(self) -> dict[str, Account]:
        rows = await self.db.fetch("select * from accounts")
        return {row["id"]: Account(row["available_nano_credits"], row["version"]) for row in rows}

    async def _models(self, ids: list[str] | None) -> dict[str, Model]:
        rows = await self._fetch("select * from models where $1::text[] is null or id = any($1)", ids)
        return {row["id"]: _model(row) for row in rows}

    async def _prices(self, model_ids: list[str] | None) -> dict[str, tuple[Price, ...]]:
        rows = await self._fetch(
            "select * from prices where $1::text[] is null or model_id = any($1)"
            " order by model_id, effective_from, id",
            model_ids,
        )
        found: dict[str, tuple[Price, ...]] = {}
        for row in rows:
            price = Price(row["id"], json.loads(row["nano_credits"]), row["effective_from"].timestamp())
            found[row["model_id"]] = (*found.get(row["model_id"], ()), price)
        return found

    async def _usable(self, ids: list[str] | None) -> dict[str, bool]:
        rows = await self._fetch(
            "select * from deployment_health where $1::text[] is null or deployment_id = any($1)", ids
        )
        return {row["deployment_id"]: row["usable"] for row in rows}


def _model(row: Any) -> Model:
    return Model(
        id=row["id"],
        capabilities=frozenset(row["capabilities"]),
        context_length=row["context_length"],
        deployments=tuple(Deployment(**deployment) for deployment in json.loads(row["deployments"])),
        fallbacks=tuple(row["fallbacks"]),
        cache_seconds=row["cache_seconds"],
        content_filter=row["content_filter"],
    )
