"""Prices, usage with what it was charged, its sums, and the partitions that hold it.

Transactions take rows in the order of the methods here (requests, then accounts), and each kind in the order
of its ids, so that none waits for another that waits for it. Sums belong to one account each: its lock is
theirs.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

from dozen_chassis.postgres import Repository
from dozen_credits.domain.accounts import Balance
from dozen_credits.domain.metering import Charge, Price, Unrated
from dozen_credits.domain.usage import HourKey


class MeteringRepository(Repository):
    """Prices, charges and usage."""

    async def learn(self, price: Price) -> None:
        """Keep a price; one that is kept already stays as it is."""
        await self.db.execute(
            "insert into prices (id, model_id, nano_credits, effective_from) values ($1, $2, $3, $4)"
            " on conflict do nothing",
            price.id,
            price.model_id,
            json.dumps(dict(price.nano_credits)),
            price.effective_from,
        )

    async def prices(self, ids: Collection[str]) -> dict[str, Price]:
        """Give those prices that are known."""
        rows = await self.db.fetch("select * from prices where id = any($1)", list(ids))
        return {
            row["id"]: Price(
                row["id"], row["model_id"], json.loads(row["nano_credits"]), row["effective_from"]
            )
            for row in rows
        }

    async def claim(self, requests: Mapping[str, datetime]) -> set[str]:
        """Take requests by id, with the times at which they finished; give those that nobody took before."""
        ids = sorted(requests)
        rows = await self.db.fetch(
            "insert into reported_requests (request_id, finished_at)"
            " select * from unnest($1::text[], $2::timestamptz[])"
            " on conflict do nothing returning request_id",
            ids,
            [requests[request_id] for request_id in ids],
        )
        return {row["request_id"] for row in rows}

    async def lock_accounts(self, ids: Collection[str]) -> set[str]:
        """Keep others from changing accounts until the transaction ends; give those that exist."""
        rows = await self.db.fetch(
            "select id from accounts where id = any($1) order by id for update", list(ids)
        )
        return {row["id"] for row in rows}

    async def charge(self, charges: Sequence[Charge]) -> list[Balance]:
        """Keep usage and post what it costs; give the balances of its accounts."""
        usages = [charge.usage for charge in charges]
        rows = await self.db.fetch(
            """
            with charged as (
                insert into usage (
                    request_id, account_id, key_id, model, deployment_id, operation, price_id, quantities,
                    nano_credits, estimated, finished_at
                )
                select * from unnest(
                    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                    $8::jsonb[], $9::bigint[], $10::boolean[], $11::timestamptz[]
                )
                returning account_id, request_id, nano_credits
            ), transferred as (
                insert into transfers (account_id, kind, debit, credit, nano_credits, reference)
                select account_id, 'charge', 'available', 'revenue', nano_credits, request_id
                from charged where nano_credits > 0
            )
            update accounts
            set available = available - costs.nano_credits, version = version + 1, updated_at = now()
            from (
                select account_id, sum(nano_credits)::bigint as nano_credits from charged group by account_id
            ) as costs
            where id = costs.account_id
            returning id, available, version
            """,
            [usage.request_id for usage in usages],
            [usage.account_id for usage in usages],
            [usage.key_id for usage in usages],
            [usage.model for usage in usages],
            [usage.deployment_id for usage in usages],
            [usage.operation for usage in usages],
            [usage.price_id for usage in usages],
            [json.dumps(dict(usage.quantities)) for usage in usages],
            [charge.nano_credits for charge in charges],
            [usage.estimated for usage in usages],
            [usage.finished_at for usage in usages],
        )
        return [Balance(row["id"], row["available"], row["version"]) for row in rows]

    async def add_up(self, sums: Mapping[HourKey, int]) -> None:
        """Add to the sums of each hour."""
        keys = sorted(sums)
        await self.db.execute(
            "insert into usage_hours (account_id, hour, key_id, model, operation, measure, amount)"
            " select * from unnest("
            "  $1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[])"
            " on conflict (account_id, hour, key_id, model, operation, measure)"
            " do update set amount = usage_hours.amount + excluded.amount",
            *(list(column) for column in zip(*keys, strict=True)),
            [sums[key] for key in keys],
        )

    async def set_aside(self, unrated: Sequence[Unrated]) -> None:
        """Keep usage that cannot be charged."""
        await self.db.execute(
            "insert into unrated_usage (request_id, reason, record)"
            " select * from unnest($1::text[], $2::text[], $3::json[])",
            [one.usage.request_id for one in unrated],
            [one.reason.value for one in unrated],
            [json.dumps(asdict(one.usage), default=datetime.isoformat) for one in unrated],
        )

    async def create_partitions(self, months_ahead: int) -> None:
        """Make the partitions of this month and of so many after it, where they are missing."""
        await self.db.execute("select create_partitions($1)", months_ahead)
