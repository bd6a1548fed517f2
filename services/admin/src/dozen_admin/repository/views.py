"""What the pages show of the read model."""

import json
from datetime import datetime
from typing import Any

from dozen_admin.domain.accounts import Account
from dozen_admin.domain.catalogue import Deployment, Model
from dozen_admin.domain.keys import ApiKey, Budget, KeyTerms, RateLimits
from dozen_admin.domain.tasks import Task
from dozen_admin.domain.usage import Charge, ModelUsage, Totals
from dozen_chassis.postgres import Repository

_MOST_MODELS = 500
_MOST_DEPLOYMENTS = 1000

_ACCOUNTS = (
    "select id, name, opened_at, available_nano_credits as available, leased_nano_credits as leased,"
    "  low_below_nano_credits as low_below, charged_nano_credits as charged, requests from accounts"
)


class ViewsRepository(Repository):
    """The read model, for reading."""

    async def accounts(self, *, after: str | None, limit: int) -> list[Account]:
        """Give accounts by their ids, after one."""
        rows = await self.db.fetch(
            f"{_ACCOUNTS} where $1::text is null or id > $1 order by id limit $2", after, limit
        )
        return [Account(**row) for row in rows]

    async def account(self, account: str) -> Account | None:
        """Give one account."""
        row = await self.db.fetchrow(f"{_ACCOUNTS} where id = $1", account)
        return Account(**row) if row else None

    async def low_accounts(self, limit: int) -> list[Account]:
        """Give the accounts that are low or exhausted, those with the least first."""
        rows = await self.db.fetch(
            f"{_ACCOUNTS} where available_nano_credits + leased_nano_credits < low_below_nano_credits"
            " order by available_nano_credits + leased_nano_credits, id limit $1",
            limit,
        )
        return [Account(**row) for row in rows]

    async def account_count(self) -> int:
        """Count the accounts."""
        count: int = await self.db.fetchval("select count(*) from accounts")
        return count

    async def keys(self, account: str, limit: int) -> list[ApiKey]:
        """Give an account's keys, the newest first."""
        rows = await self.db.fetch(
            "select id, account_id as account, terms, created_at, revoked_at, expires_at,"
            "  previous_secret_expires_at from api_keys"
            " where account_id = $1 order by created_at desc, id limit $2",
            account, limit,
        )  # fmt: skip
        return [ApiKey(**{**row, "terms": _terms(json.loads(row["terms"]))}) for row in rows]

    async def usage_by_model(self, account: str, since: datetime) -> list[ModelUsage]:
        """Give what an account used of each model since the hour of a moment, the dearest first."""
        rows = await self.db.fetch(
            "with used as ("
            "  select model, sum(requests)::bigint as requests, sum(nano_credits)::bigint as nano_credits"
            "  from usage_hours where account_id = $1 and hour >= date_trunc('hour', $2::timestamptz, 'UTC')"
            "  group by model),"
            " units as ("
            "  select model, unit, sum(quantity)::bigint as quantity"
            "  from quantity_hours where account_id = $1 and hour >= date_trunc('hour', $2, 'UTC')"
            "  group by model, unit)"
            " select model, requests, nano_credits, coalesce(("
            "  select jsonb_object_agg(unit, quantity) from units where units.model = used.model), '{}')"
            "  as quantities"
            " from used order by nano_credits desc, model limit $3",
            account, since, _MOST_MODELS,
        )  # fmt: skip
        return [
            ModelUsage(row["model"], row["requests"], json.loads(row["quantities"]), row["nano_credits"])
            for row in rows
        ]

    async def charges(self, *, account: str | None, after: str | None, limit: int) -> list[Charge]:
        """Give the newest charges, of one account or all, after that of a request."""
        conditions = ["true"]
        arguments: list[object] = [limit]
        for value, condition in [
            (account, "account_id = ${}"),
            (after, "number < (select number from charges where request_id = ${})"),
        ]:
            if value is not None:
                arguments.append(value)
                conditions.append(condition.format(len(arguments)))
        rows = await self.db.fetch(
            "select request_id, account_id as account, key_id as key, model, deployment_id as deployment,"
            "  operation, quantities, nano_credits, estimated, finished_at"
            f" from charges where {' and '.join(conditions)} order by number desc limit $1",
            *arguments,
        )
        return [Charge(**{**row, "quantities": json.loads(row["quantities"])}) for row in rows]

    async def totals(self, since: datetime) -> Totals:
        """Sum up the charges of requests that finished since a moment: the whole hours and what is before."""
        row = await self.db.fetchrow(
            "with edge as (select date_trunc('hour', $1::timestamptz, 'UTC') + interval '1 hour' as whole),"
            " parts as ("
            "  select requests, tokens, nano_credits from usage_hours, edge where hour >= whole"
            "  union all"
            "  select 1, tokens, nano_credits from charges, edge"
            "  where finished_at >= $1 and finished_at < whole)"
            " select coalesce(sum(requests), 0)::bigint as requests,"
            "  coalesce(sum(tokens), 0)::bigint as tokens,"
            "  coalesce(sum(nano_credits), 0)::bigint as nano_credits from parts",
            since,
        )
        assert row is not None  # a sum has one row
        return Totals(**row)

    async def models(self, now: datetime) -> list[Model]:
        """Give the catalogue with the deployments and the prices in force.

        A model without deployments has been taken out of the catalogue.
        """
        rows = await self.db.fetch(
            "select id, owned_by, capabilities, context_length, ("
            "  select nano_credits from prices where model_id = models.id and effective_from <= $1"
            "  order by effective_from desc, id desc limit 1) as prices"
            " from models where exists (select from deployments where model_id = models.id)"
            " order by id limit $2",
            now, _MOST_MODELS,
        )  # fmt: skip
        deployments = await self.deployments()
        return [
            Model(
                **{
                    **row,
                    "prices": json.loads(row["prices"]) if row["prices"] else None,
                    "deployments": [one for one in deployments if one.model == row["id"]],
                }
            )
            for row in rows
        ]

    async def deployments(self) -> list[Deployment]:
        """Give all deployments with their health."""
        rows = await self.db.fetch(
            "select id, model_id as model, service, address, priority, weight,"
            "  coalesce(health, 'unknown') as health, coalesce(reason, '') as reason, since"
            " from deployments left join deployment_health on deployment_id = id"
            " order by model_id, priority, id limit $1",
            _MOST_DEPLOYMENTS,
        )
        return [Deployment(**row) for row in rows]

    async def tasks(self, *, after: str | None, limit: int) -> list[Task]:
        """Give the tasks that finished last, after one."""
        rows = await self.db.fetch(
            "select id, account_id as account, type, state, error, finished_at from tasks"
            " where $1::text is null or number < (select number from tasks where id = $1)"
            " order by number desc limit $2",
            after, limit,
        )  # fmt: skip
        return [Task(**row) for row in rows]


def _terms(terms: dict[str, Any]) -> KeyTerms:
    budget = terms["budget"]
    return KeyTerms(
        **{
            **terms,
            "endpoints": tuple(terms["endpoints"]),
            "models": tuple(terms["models"]),
            "limits": RateLimits(**terms["limits"]),
            "budget": None if budget is None else Budget(**budget),
        }
    )
