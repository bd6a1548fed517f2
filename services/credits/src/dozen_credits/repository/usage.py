"""Usage as its account reads it."""

import json
from datetime import datetime

from asyncpg import Record

from dozen_chassis.postgres import Repository
from dozen_credits.domain.metering import Charge, Usage
from dozen_credits.domain.usage import UNITS, Buckets, Place, UsageQuery, UsageSum

_SELECTED = (
    "account_id = $1 and ($2::text[] is null or model = any($2)) and ($3::text[] is null or key_id = any($3))"
)
_GROUPS = {"model": "model", "key": "key_id", "operation": "operation"}
_AMOUNTS = ("requests", "nano_credits", *UNITS)

# The start of the last of so many buckets, found by going from one to the next.
_LAST_BUCKET = f"""
    with recursive buckets (start) as (
        (
            select start from usage_sums
            where {_SELECTED} and step = $4 and start >= $5 and start < $6 order by start limit 1
        )
        union all
        select (
            select sums.start from usage_sums as sums
            where {_SELECTED} and step = $4 and sums.start > buckets.start and sums.start < $6
            order by sums.start limit 1
        )
        from buckets where buckets.start is not null
    )
    select max(start) from (select start from buckets limit $7) as chosen
"""


class UsageRepository(Repository):
    """Charged usage, and its sums."""

    async def sums(
        self, account_id: str, buckets: Buckets, query: UsageQuery, after: Place, limit: int
    ) -> list[UsageSum]:
        """Give the first sums that follow a place, in the order of time."""
        selected = (account_id, query.models, query.key_ids)
        spans = buckets.spans()
        if buckets.start + buckets.width < buckets.end:
            last = await self.db.fetchval(_LAST_BUCKET, *selected, *spans[0], limit + 1)
            spans = [spans[0]._replace(end=last + buckets.width)] if last else []
        if not spans:
            return []
        names = (name if group in query.groups else f"null as {name}" for group, name in _GROUPS.items())
        rows = await self.db.fetch(
            f"""
            with steps as (
                select date_bin($4, found.start, $5) as bucket, found.*
                from unnest($6::text[], $7::timestamptz[], $8::timestamptz[]) as span (step, first, past)
                cross join lateral (
                    select * from usage_sums
                    where {_SELECTED} and step = span.step and start >= first and start < past
                    offset 0 -- so that it is read span by span, by the index
                ) as found
            ), sums as (
                select bucket, {", ".join(names)}, {", ".join(f"sum({name})::bigint" for name in _AMOUNTS)}
                from steps group by 1, 2, 3, 4
            ), numbered as (
                select row_number() over (partition by bucket order by model, key_id, operation), * from sums
            )
            select * from numbered where (bucket, row_number) > ($9, $10)
            order by bucket, row_number limit $11
            """,
            *selected,
            buckets.width,
            buckets.start,
            *(list(column) for column in zip(*spans, strict=True)),
            *after,
            limit,
        )
        return [
            UsageSum(
                Place(start, number),
                start + buckets.width,
                model,
                key_id,
                operation,
                requests,
                nano_credits,
                {unit: amount for unit, amount in zip(UNITS, amounts, strict=True) if amount},
            )
            for number, start, model, key_id, operation, requests, nano_credits, *amounts in rows
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
        return [read_charge(row) for row in rows]


def read_charge(row: Record) -> Charge:
    """Read a charge from the row of its usage."""
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
