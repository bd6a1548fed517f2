"""What the events of other services bring into the read model."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from dozen_admin.domain.accounts import Account, Balance
from dozen_admin.domain.catalogue import Health, Model, Price
from dozen_admin.domain.keys import ApiKey
from dozen_admin.domain.tasks import Task
from dozen_admin.domain.usage import Charge
from dozen_chassis.postgres import Repository

# One statement, so that a charge and its part of each total are the same fact; `order by` lets concurrent
# statements lock rows in one order.
_ADD_CHARGES = """
with added as (
    insert into charges (
        request_id, account_id, key_id, model, deployment_id, operation,
        quantities, nano_credits, estimated, finished_at
    )
    select
        request_id, account, key, model, deployment, operation,
        quantities, nano_credits, estimated, finished_at
    from jsonb_to_recordset($1::jsonb) as given (
        request_id text, account text, key text, model text, deployment text, operation text,
        quantities jsonb, nano_credits bigint, estimated boolean, finished_at timestamptz
    )
    order by finished_at, request_id
    on conflict (request_id) do nothing
    returning *, date_trunc('hour', finished_at, 'UTC') as hour
),
hours as (
    insert into usage_hours as kept (hour, account_id, model, requests, tokens, nano_credits)
    select hour, account_id, model, count(*), sum(tokens), sum(nano_credits)
    from added group by 1, 2, 3 order by 1, 2, 3
    on conflict (hour, account_id, model) do update set
        requests = kept.requests + excluded.requests,
        tokens = kept.tokens + excluded.tokens,
        nano_credits = kept.nano_credits + excluded.nano_credits
),
quantities as (
    insert into quantity_hours as kept (hour, account_id, model, unit, quantity)
    select hour, account_id, model, key, sum(value::bigint)
    from added, jsonb_each_text(added.quantities) group by 1, 2, 3, 4 order by 1, 2, 3, 4
    on conflict (hour, account_id, model, unit) do update set quantity = kept.quantity + excluded.quantity
)
insert into accounts as kept (id, charged_nano_credits, requests)
select account_id, sum(nano_credits), count(*) from added group by 1 order by 1
on conflict (id) do update set
    charged_nano_credits = kept.charged_nano_credits + excluded.charged_nano_credits,
    requests = kept.requests + excluded.requests
"""


class IntakeRepository(Repository):
    """The read model, for writing."""

    async def put_account(self, account: Account) -> None:
        """Keep an account's name and age."""
        await self.db.execute(
            "insert into accounts (id, name, opened_at) values ($1, $2, $3)"
            " on conflict (id) do update set name = excluded.name, opened_at = excluded.opened_at",
            account.id, account.name, account.opened_at,
        )  # fmt: skip

    async def put_balances(self, balances: Sequence[Balance]) -> None:
        """Keep balances that are newer than those known."""
        await self.db.executemany(
            "insert into accounts as kept (id, available_nano_credits, leased_nano_credits, balance_version)"
            " values ($1, $2, $3, $4) on conflict (id) do update set"
            "  available_nano_credits = excluded.available_nano_credits,"
            "  leased_nano_credits = excluded.leased_nano_credits,"
            "  balance_version = excluded.balance_version"
            " where kept.balance_version < excluded.balance_version",
            sorted((one.account, one.available, one.leased, one.version) for one in balances),
        )

    async def put_low_limit(self, account: str, limit: int | None) -> None:
        """Keep below which balance an account is low; None tells that it was low, and no limit."""
        await self.db.execute(
            "insert into accounts as kept (id, low_below_nano_credits) values ($1, coalesce($2::bigint, 1))"
            " on conflict (id) do update set"
            "  low_below_nano_credits = coalesce($2, greatest(kept.low_below_nano_credits, 1))",
            account, limit,
        )  # fmt: skip

    async def put_key(self, key: ApiKey, told_at: datetime) -> None:
        """Keep a key, unless it was told of later; one that was revoked stays so."""
        await self.db.execute(
            "insert into api_keys as kept (account_id, id, terms, created_at, revoked_at, expires_at,"
            "  previous_secret_expires_at, told_at)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8) on conflict (account_id, id) do update set"
            "  terms = excluded.terms, revoked_at = excluded.revoked_at, expires_at = excluded.expires_at,"
            "  previous_secret_expires_at = excluded.previous_secret_expires_at, told_at = excluded.told_at"
            " where (kept.revoked_at is not null, kept.told_at)"
            "  <= (excluded.revoked_at is not null, excluded.told_at)",
            key.account, key.id, json.dumps(asdict(key.terms)), key.created_at, key.revoked_at,
            key.expires_at, key.previous_secret_expires_at, told_at,
        )  # fmt: skip

    async def add_charges(self, charges: Sequence[Charge]) -> None:
        """Add those charges whose requests were not charged yet, to the totals as well."""
        given = [
            {
                "request_id": charge.request_id,
                "account": charge.account,
                "key": charge.key,
                "model": charge.model,
                "deployment": charge.deployment,
                "operation": charge.operation,
                "quantities": dict(charge.quantities),
                "nano_credits": charge.nano_credits,
                "estimated": charge.estimated,
                "finished_at": charge.finished_at.isoformat(),
            }
            for charge in charges
        ]
        await self.db.execute(_ADD_CHARGES, json.dumps(given))

    async def put_model(self, model: Model, announced_at: datetime) -> bool:
        """Keep a model without its deployments; False where a later announcement is known."""
        kept = await self.db.fetchval(
            "insert into models as kept (id, owned_by, capabilities, context_length, announced_at)"
            " values ($1, $2, $3, $4, $5) on conflict (id) do update set"
            "  owned_by = excluded.owned_by, capabilities = excluded.capabilities,"
            "  context_length = excluded.context_length, announced_at = excluded.announced_at"
            " where kept.announced_at <= excluded.announced_at returning true",
            model.id, model.owned_by, list(model.capabilities), model.context_length, announced_at,
        )  # fmt: skip
        return kept is not None

    async def put_deployments(self, model: Model) -> None:
        """Keep a model's deployments, and drop those that it no longer has."""
        await self.db.execute(
            "delete from deployments where model_id = $1 and id <> all($2::text[])",
            model.id,
            [deployment.id for deployment in model.deployments],
        )
        await self.db.executemany(
            "insert into deployments (id, model_id, service, address, priority, weight)"
            " values ($1, $2, $3, $4, $5, $6) on conflict (id) do update set"
            "  model_id = excluded.model_id, service = excluded.service, address = excluded.address,"
            "  priority = excluded.priority, weight = excluded.weight",
            sorted((one.id, model.id, one.service, one.address, one.priority, one.weight)
                   for one in model.deployments),
        )  # fmt: skip

    async def put_health(self, health: Health) -> None:
        """Keep a deployment's health, unless a later one is known."""
        await self.db.execute(
            "insert into deployment_health as kept (deployment_id, health, reason, since, observed_at)"
            " values ($1, $2, $3, $4, $4) on conflict (deployment_id) do update set"
            "  health = excluded.health, reason = excluded.reason, observed_at = excluded.observed_at,"
            "  since = case when kept.health = excluded.health then kept.since else excluded.since end"
            " where kept.observed_at <= excluded.observed_at",
            health.deployment, health.health, health.reason, health.observed_at,
        )  # fmt: skip

    async def put_price(self, price: Price) -> None:
        """Keep a price; it never changes."""
        await self.db.execute(
            "insert into prices (id, model_id, nano_credits, effective_from) values ($1, $2, $3, $4)"
            " on conflict do nothing",
            price.id, price.model, json.dumps(dict(price.nano_credits)), price.effective_from,
        )  # fmt: skip

    async def add_task(self, task: Task) -> None:
        """Keep a finished task; its state is final."""
        await self.db.execute(
            "insert into tasks (id, account_id, type, state, error, finished_at)"
            " values ($1, $2, $3, $4, $5, $6) on conflict do nothing",
            task.id, task.account, task.type, task.state, task.error, task.finished_at,
        )  # fmt: skip

    async def forget_charges(self, before: datetime, limit: int) -> int:
        """Drop charges of requests that finished before a moment; return how many."""
        status: str = await self.db.execute(
            "delete from charges where number in ("
            "  select number from charges where finished_at < $1 limit $2)",
            before, limit,
        )  # fmt: skip
        return int(status.split()[-1])

    async def forget_tasks(self, before: datetime, limit: int) -> int:
        """Drop tasks that finished before a moment; return how many."""
        status: str = await self.db.execute(
            "delete from tasks where number in ("
            "  select number from tasks where finished_at < $1 limit $2)",
            before, limit,
        )  # fmt: skip
        return int(status.split()[-1])
