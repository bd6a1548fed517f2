"""Usage as its account reads it."""

import json
from collections.abc import Collection
from datetime import datetime

from asyncpg import Record

from dozen_chassis.postgres import Repository
from dozen_credits.domain.metering import Charge, Usage
from dozen_credits.domain.usage import Buckets, UsageSum


class UsageRepository(Repository):
    """Charged usage, and its sums."""

    async def sums(
        self, account_id: str, buckets: Buckets, groups: Collection[str], limit: int
    ) -> list[UsageSum]:
        """Give the sums of the first buckets that have any, in the order of time."""
        rows = await self.db.fetch(
            """
            with chosen as (
                select distinct date_bin($4, hour, $2) as start from usage_hours
                where account_id = $1 and hour >= $2 and hour < $3
                order by start limit $5
            ), sums as (
                select
                    date_bin($4, hour, $2) as start,
                    case when $6 then model end as model,
                    case when $7 then key_id end as key_id,
                    case when $8 then operation end as operation,
                    measure,
                    sum(amount)::bigint as amount
                from usage_hours
                where account_id = $1 and hour >= $2 and hour < (select max(start) + $4 from chosen)
                group by 1, 2, 3, 4, 5
            )
            select start, model, key_id, operation, json_object_agg(measure, amount) as measures
            from sums group by 1, 2, 3, 4 order by 1, 2, 3, 4
            """,
            account_id,
            buckets.start,
            buckets.end,
            buckets.width,
            limit,
            "model" in groups,
            "key" in groups,
            "operation" in groups,
        )
        return [
            UsageSum(
                start=row["start"],
                end=row["start"] + buckets.width,
                model=row["model"],
                key_id=row["key_id"],
                operation=row["operation"],
                measures=json.loads(row["measures"]),
            )
            for row in rows
        ]

    async def find_time(self, account_id: str, request_id: str) -> datetime | None:
        """Give the time at which a charged request finished."""
        time: datetime | None = await self.db.fetchval(
            "select finished_at from usage where account_id = $1 and request_id = $2 and finished_at ="
            " (select finished_at from reported_requests where request_id = $2)",
            account_id,
            request_id,
        )
        return time

    async def requests(self, account_id: str, before: tuple[datetime, str], limit: int) -> list[Charge]:
        """Give the newest charged requests before a time and, of that time, an id."""
        rows = await self.db.fetch(
            "select * from usage where account_id = $1"
            " and finished_at <= $2 and (finished_at, request_id) < ($2, $3)"  # the first spares partitions
            " order by finished_at desc, request_id desc limit $4",
            account_id,
            *before,
            limit,
        )
        return [_charge(row) for row in rows]


def _charge(row: Record) -> Charge:
    usage = Usage(
        request_id=row["request_id"],
        account_id=row["account_id"],
        key_id=row["key_id"],
        model=row["model"],
        deployment_id=row["deployment_id"],
        operation=row["operation"],
        price_id=row["price_id"],
        quantities=json.loads(row["quantities"]),
        finished_at=row["finished_at"],
        estimated=row["estimated"],
        lease_id=row["lease_id"],
    )
    return Charge(usage, row["nano_credits"])
