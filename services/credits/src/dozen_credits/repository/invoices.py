"""Invoices and statements, from what charging adds up and from what is posted."""

import json
from datetime import datetime

from asyncpg import Record

from dozen_chassis.postgres import Repository
from dozen_credits.domain.invoices import Invoice, Line, Month, Movement, MovementKind

_POSTED = "kind in ('grant', 'adjustment', 'expiry', 'refund')"  # as the index `transfers_posted` has it


class InvoicesRepository(Repository):
    """What is kept of each month."""

    async def invoices(
        self, account_id: str, start: datetime, end: datetime, limit: int, *, with_lines: bool
    ) -> list[Invoice]:
        """Give the newest invoices of months with activity that start in a period, the newest first."""
        rows = await self.db.fetch(
            f"""
            with active as (
                select month from invoice_days where account_id = $1 and month >= $2 and month < $3
                union
                select date_trunc('month', day, 'UTC') from invoice_days
                where account_id = $1 and day >= $2 and day < $3
                union
                select date_trunc('month', created_at, 'UTC') from transfers
                where account_id = $1 and created_at >= $2 and created_at < $3 and {_POSTED}
            ), months as (
                select month from active order by month desc limit $4
            )
            select month, requests, charged, written_off, refunded, lines
            from months
            cross join lateral (
                select
                    coalesce(sum(requests), 0) as requests,
                    coalesce(sum(charged), 0) as charged,
                    coalesce(sum(written_off), 0) as written_off
                from invoice_days where account_id = $1 and month = months.month
            ) as charges
            cross join lateral (
                select coalesce(sum(nano_credits), 0) as refunded from postings
                where account_id = $1 and kind = 'refund'
                    and finished_at >= month and finished_at < date_add(month, interval '1 month', 'UTC')
            ) as refunds
            left join lateral (
                select json_agg(
                    json_build_array(model, price_id, unit, quantity, coalesce(nano_credits -> unit, '0'))
                    order by model, unit, effective_from, price_id
                ) as lines
                from invoice_lines join prices on prices.id = price_id
                where account_id = $1 and month = months.month
            ) as listed on $5
            order by month desc
            """,
            account_id,
            start,
            end,
            limit,
            with_lines,
        )
        return [_invoice(row) for row in rows]

    async def opening(self, account_id: str, month: Month) -> int:
        """Give the balance at the start of a month."""
        balance = await self.db.fetchval(
            f"""
            select (
                select coalesce(sum(case credit when 'available' then nano_credits else -nano_credits end), 0)
                from transfers where account_id = $1 and created_at < $2 and {_POSTED}
            ) - (
                select coalesce(sum(charged - written_off), 0) from invoice_days
                where account_id = $1 and day < $2
            )
            """,
            account_id,
            month.start,
        )
        return int(balance)

    async def charges(self, account_id: str, month: Month) -> list[Movement]:
        """Give the charges posted in a month, summed by day and by the month in which requests finished."""
        rows = await self.db.fetch(
            """
            select day, month, kind, amount from invoice_days
            cross join lateral (
                values ('charge', -charged), ('write_off', written_off)
            ) as sides (kind, amount)
            where account_id = $1 and day >= $2 and day < $3 and amount <> 0
            order by day, month, kind
            """,
            account_id,
            month.start,
            month.end,
        )
        return [
            Movement(row["day"], MovementKind(row["kind"]), int(row["amount"]), str(Month(row["month"])))
            for row in rows
        ]

    async def posted(
        self, account_id: str, month: Month, after: Movement | None, limit: int
    ) -> list[Movement]:
        """Give the first of all other movements in a month, in the order of time."""
        rows = await self.db.fetch(
            f"""
            select
                moved.created_at,
                moved.id,
                case when payments.id is not null and moved.kind = 'grant' then 'top_up' else moved.kind end,
                case credit when 'available' then moved.nano_credits else -moved.nano_credits end,
                coalesce(payments.id, request_id, reference),
                coalesce(reason, '')
            from (
                select * from transfers
                where account_id = $1 and created_at >= $2 and created_at < $3 and {_POSTED}
                    and (created_at, id) > ($2, $4::uuid)
                order by created_at, id limit $5
            ) as moved
            left join postings on postings.id = reference
            left join payments on payments.id = idempotency_key
            order by moved.created_at, moved.id
            """,
            account_id,
            after.time if after else month.start,
            month.end,
            after.id if after else "00000000-0000-0000-0000-000000000000",
            limit,
        )
        return [
            Movement(time, MovementKind(kind), amount, reference, reason, str(transfer))
            for time, transfer, kind, amount, reference, reason in rows
        ]


def _invoice(row: Record) -> Invoice:
    return Invoice(
        month=Month(row["month"]),
        requests=int(row["requests"]),
        charged=int(row["charged"]),
        written_off=int(row["written_off"]),
        refunded=int(row["refunded"]),
        lines=tuple(Line(*line) for line in json.loads(row["lines"] or "[]")),
    )
