"""All SQL of the gateway."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import asyncpg

from dozen_chassis.postgres import Repository
from dozen_gateway.domain.keys import ApiKey
from dozen_gateway.domain.state import Account, Deployment, Model, Price, Snapshot

log = logging.getLogger(__name__)

CHANNEL = "gateway_state"
"""Told of each change: `{"accounts": ["acme"]}` says that these have to be read anew."""

_NOTIFIED_IDS = 100  # a notification has at most 8000 bytes
_RETRY_SECONDS = 0.5


class GatewayRepository(Repository):
    """API keys, and the read models that decisions are made from."""

    async def add_key(self, key: ApiKey) -> None:
        """Keep a new key, and tell every replica."""
        await self.db.execute(
            "insert into api_keys (id, account_id, name, secret_sha256, created_at)"
            " values ($1, $2, $3, $4, $5)",
            key.id, key.account, key.name, key.secret_sha256, key.created_at,
        )  # fmt: skip
        await self.tell_replicas("keys", [key.id])

    async def count_keys(self, account: str) -> int:
        """Count the keys of an account that are not revoked."""
        count: int = await self.db.fetchval(
            "select count(*) from api_keys where account_id = $1 and revoked_at is null", account
        )
        return count

    async def find_key(self, account: str, key_id: str) -> ApiKey | None:
        """Give a key of an account."""
        row = await self.db.fetchrow(
            "select * from api_keys where account_id = $1 and id = $2", account, key_id
        )
        return _key(row) if row else None

    async def list_keys(
        self, account: str, *, limit: int, after: str | None, newest_first: bool, revoked: bool
    ) -> list[ApiKey]:
        """List the keys of an account that follow the key `after`, revoked ones only where wanted."""
        beyond, direction = ("<", "desc") if newest_first else (">", "asc")
        rows = await self.db.fetch(
            "select * from api_keys where account_id = $1 and ($2 or revoked_at is null)"
            f" and ($3::text is null or (created_at, id) {beyond}"
            "  (select created_at, id from api_keys where account_id = $1 and id = $3))"
            f" order by created_at {direction}, id {direction} limit $4",
            account, revoked, after, limit,
        )  # fmt: skip
        return [_key(row) for row in rows]

    async def revoke_key(self, account: str, key_id: str, revoked_at: datetime) -> bool:
        """Revoke a key, and tell every replica; False where there is none that is not revoked."""
        done = await self.db.fetchval(
            "update api_keys set revoked_at = $3"
            " where account_id = $1 and id = $2 and revoked_at is null returning true",
            account, key_id, revoked_at,
        )  # fmt: skip
        if done:
            await self.tell_replicas("keys", [key_id])
        return done is not None

    async def save_accounts(self, accounts: Mapping[str, Account]) -> None:
        """Keep the accounts whose version is newer than what is kept."""
        async with self.transaction() as tx:
            rows = await tx.db.fetch(
                "insert into accounts (id, available_nano_credits, version)"
                # In one order, so that replicas do not wait for each other in a circle.
                " select * from unnest($1::text[], $2::bigint[], $3::bigint[]) order by 1"
                " on conflict (id) do update"
                " set available_nano_credits = excluded.available_nano_credits, version = excluded.version"
                " where accounts.version < excluded.version returning id",
                list(accounts),
                [account.available_nano_credits for account in accounts.values()],
                [account.version for account in accounts.values()],
            )
            await tx.tell_replicas("accounts", [row["id"] for row in rows])

    async def save_model(self, model: Model, registered_at: datetime) -> None:
        """Keep a model, unless a later registration of it is kept."""
        async with self.transaction() as tx:
            rows = await tx.db.fetch(
                "insert into models (id, capabilities, context_length, deployments, registered_at)"
                " values ($1, $2, $3, $4, $5) on conflict (id) do update"
                " set capabilities = excluded.capabilities, context_length = excluded.context_length,"
                "  deployments = excluded.deployments, registered_at = excluded.registered_at"
                " where models.registered_at < excluded.registered_at returning id",
                model.id,
                sorted(model.capabilities),
                model.context_length,
                json.dumps([asdict(deployment) for deployment in model.deployments]),
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

    async def tell_replicas(self, kind: str, ids: Sequence[str]) -> None:
        """Tell that these have changed, once this transaction has committed."""
        for start in range(0, len(ids), _NOTIFIED_IDS):
            await self.notify(CHANNEL, json.dumps({kind: ids[start : start + _NOTIFIED_IDS]}))

    async def changes(self) -> AsyncIterator[Snapshot]:
        """Give all there is, and then each change that any replica makes, without end."""
        async for payload in self._database.listen(CHANNEL):
            changed = None if payload is None else json.loads(payload)
            yield await self._read_patiently(changed)

    async def read(self, changed: Mapping[str, Collection[str]] | None = None) -> Snapshot:
        """Read what has changed, by kind and ids; without, everything."""

        def ids(kind: str) -> list[str] | None:
            return None if changed is None else list(changed.get(kind, ()))

        return Snapshot(
            whole=changed is None,
            keys=await self._keys(ids("keys")),
            accounts=await self._accounts(ids("accounts")),
            models=await self._models(ids("models")),
            prices=await self._prices(ids("prices")),
            usable=await self._usable(ids("usable")),
        )

    async def _read_patiently(self, changed: Mapping[str, Collection[str]] | None) -> Snapshot:
        while True:
            try:
                return await self.read(changed)
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                log.warning("reading the state has to wait: %r", error)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _fetch(self, query: str, ids: list[str] | None) -> list[asyncpg.Record]:
        """Run a query of the rows with these ids; None gives all of them."""
        return [] if ids == [] else await self.db.fetch(query, ids)

    async def _keys(self, ids: list[str] | None) -> dict[str, ApiKey]:
        rows = await self._fetch("select * from api_keys where $1::text[] is null or id = any($1)", ids)
        return {row["id"]: _key(row) for row in rows}

    async def _accounts(self, ids: list[str] | None) -> dict[str, Account]:
        rows = await self._fetch("select * from accounts where $1::text[] is null or id = any($1)", ids)
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


def _key(row: Any) -> ApiKey:
    return ApiKey(
        id=row["id"],
        account=row["account_id"],
        name=row["name"],
        secret_sha256=row["secret_sha256"],
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
    )


def _model(row: Any) -> Model:
    return Model(
        id=row["id"],
        capabilities=frozenset(row["capabilities"]),
        context_length=row["context_length"],
        deployments=tuple(Deployment(**deployment) for deployment in json.loads(row["deployments"])),
    )
