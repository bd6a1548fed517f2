"""Prices, usage with what it was charged, its sums, and the partitions that hold it.

Transactions take requests before accounts, and each kind in the order of its ids, so that none waits for
another that waits for it. Leases and sums belong to one account each: its lock is theirs.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime

from dozen_credits.domain.invoices import Bill
from dozen_credits.domain.leases import KeyMonth, Lease, Payment
from dozen_credits.domain.metering import Price, Unrated
from dozen_credits.domain.usage import UNITS, SumKey
from dozen_credits.repository.leases import read_lease
from dozen_credits.repository.ledger import LedgerRepository

_AMOUNTS = ("requests", "nano_credits", *UNITS)
_ADD_UP = f"""
    insert into usage_sums (account_id, step, start, key_id, model, operation, {", ".join(_AMOUNTS)})
    select * from unnest(
        $1::text[], $2::text[], $3::timestamptz[], $4::text[], $5::text[], $6::text[],
        {", ".join(f"${number}::bigint[]" for number in range(7, 7 + len(_AMOUNTS)))}
    )
    on conflict (account_id, step, start, key_id, model, operation)
    do update set {", ".join(f"{name} = usage_sums.{name} + excluded.{name}" for name in _AMOUNTS)}
"""


class MeteringRepository(LedgerRepository):
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

    async def open_leases(self, ids: Collection[str]) -> dict[str, Lease]:
        """Give those leases that are open."""
        rows = await self.db.fetch("select * from leases where id = any($1) and closed_at is null", list(ids))
        return {row["id"]: read_lease(row) for row in rows}

    async def spend(self, amounts: Mapping[str, int]) -> None:
        """Count what leases paid."""
        await self.db.execute(
            "update leases set spent = spent + amount"
            " from unnest($1::text[], $2::bigint[]) as paid (lease_id, amount) where id = lease_id",
            list(amounts),
            list(amounts.values()),
        )

    async def keep(self, payments: Sequence[Payment]) -> None:
        """Keep usage with what it was charged."""
        usages = [payment.charge.usage for payment in payments]
        await self.db.execute(
            """
            insert into usage (
                request_id, account_id, key_id, model, deployment_id, operation, price_id, quantities,
                nano_credits, written_off, lease_id, estimated, finished_at
            )
            select * from unnest(
                $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
                $8::jsonb[], $9::bigint[], $10::bigint[], $11::text[], $12::boolean[], $13::timestamptz[]
            )
            """,
            [usage.request_id for usage in usages],
            [usage.account_id for usage in usages],
            [usage.key_id for usage in usages],
            [usage.model for usage in usages],
            [usage.deployment_id for usage in usages],
            [usage.operation for usage in usages],
            [usage.price_id for usage in usages],
            [json.dumps(dict(usage.quantities)) for usage in usages],
            [payment.charge.nano_credits for payment in payments],
            [payment.written_off for payment in payments],
            [usage.lease_id for usage in usages],
            [usage.estimated for usage in usages],
            [usage.finished_at for usage in usages],
        )

    async def count_spending(self, sums: Mapping[KeyMonth, int]) -> None:
        """Add to what keys were charged."""
        await self.db.execute(
            "insert into key_spending (account_id, key_id, month, nano_credits)"
            " select * from unnest($1::text[], $2::text[], $3::date[], $4::bigint[])"
            " on conflict (account_id, key_id, month)"
            " do update set nano_credits = key_spending.nano_credits + excluded.nano_credits",
            *(list(column) for column in zip(*sums, strict=True)),
            list(sums.values()),
        )

    async def add_up(self, sums: Mapping[SumKey, Sequence[int]]) -> None:
        """Add to the sums of each hour, day and month."""
        await self.db.execute(
            _ADD_UP,
            *(list(column) for column in zip(*sums, strict=True)),
            *(list(column) for column in zip(*sums.values(), strict=True)),
        )

    async def bill(self, bills: Collection[Bill]) -> None:
        """Add to invoices."""
        lines = [
            (bill.account_id, bill.month.start, *of, unit, quantity)
            for bill in bills
            for of, quantities in bill.quantities.items()
            for unit, quantity in quantities.items()
        ]
        totals = [
            (bill.account_id, bill.month.start, bill.requests, bill.charged, bill.written_off)
            for bill in bills
        ]
        await self.db.execute(
            """
            with lines as (
                insert into invoice_lines (account_id, month, model, price_id, unit, quantity)
                select * from unnest(
                    $1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::text[], $6::numeric[])
                on conflict (account_id, month, model, price_id, unit)
                do update set quantity = invoice_lines.quantity + excluded.quantity
            )
            insert into invoice_days (account_id, month, day, requests, charged, written_off)
            select account_id, month, date_trunc('day', now(), 'UTC'), requests, charged, written_off
            from unnest($7::text[], $8::timestamptz[], $9::bigint[], $10::numeric[], $11::numeric[])
                as sums (account_id, month, requests, charged, written_off)
            on conflict (account_id, month, day) do update set
                requests = invoice_days.requests + excluded.requests,
                charged = invoice_days.charged + excluded.charged,
                written_off = invoice_days.written_off + excluded.written_off
            """,
            *(list(column) for column in zip(*lines, strict=True)),
            *(list(column) for column in zip(*totals, strict=True)),
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
