"""Reconciliations: how far they are, and what was sent again for them."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from asyncpg import Record

from dozen_credits.domain.accounts import is_account_id
from dozen_credits.domain.reconciliation import Finding, Known, Period, Reconciliation, Recount, State
from dozen_credits.repository.audit import AuditRepository
from dozen_credits.repository.usage import read_charge

_SELECT = """
    select reconciliations.*, waiting_for, received
    from reconciliations
    cross join lateral (
        select
            coalesce(array_agg(service order by service) filter (
                where records is null or received < records
            ), '{}') as waiting_for,
            coalesce(sum(received), 0)::bigint as received
        from reconciliation_services where reconciliation_id = reconciliations.id
    ) as services
"""


class ReconciliationRepository(AuditRepository):
    """Reconciliations of all periods."""

    async def open(
        self, reconciliation_id: str, period: Period, services: Collection[str], *, automatic: bool
    ) -> bool:
        """Begin a reconciliation; False where one of the period runs, or ran by itself as this one would."""
        opened = await self.db.fetchval(
            """
            with opened as (
                insert into reconciliations (id, start_at, end_at, automatic) values ($1, $2, $3, $4)
                on conflict do nothing returning id
            ), asked as (
                insert into reconciliation_services (reconciliation_id, service)
                select id, service from opened cross join unnest($5::text[]) as service
            )
            select id from opened
            """,
            reconciliation_id,
            period.start,
            period.end,
            automatic,
            list(services),
        )
        return opened is not None

    async def find(self, reconciliation_id: str) -> Reconciliation | None:
        """Give a reconciliation."""
        row = await self.db.fetchrow(f"{_SELECT} where id = $1", reconciliation_id)
        return _reconciliation(row) if row else None

    async def find_running(self, period: Period) -> Reconciliation | None:
        """Give the reconciliation of a period that runs."""
        row = await self.db.fetchrow(
            f"{_SELECT} where start_at = $1 and end_at = $2 and state = 'running'", period.start, period.end
        )
        return _reconciliation(row) if row else None

    async def page(self, after: str, limit: int) -> list[Reconciliation]:
        """Give the newest reconciliations, or those before the one with the id `after`."""
        rows = await self.db.fetch(
            f"{_SELECT} where $1 = '' or (created_at, id) <"
            " (select created_at, id from reconciliations where id = $1)"
            " order by created_at desc, id desc limit $2",
            after,
            limit,
        )
        return [_reconciliation(row) for row in rows]

    async def last_complete(self) -> Reconciliation | None:
        """Give the last reconciliation that was complete."""
        row = await self.db.fetchrow(f"{_SELECT} where state = 'complete' order by finished_at desc limit 1")
        return _reconciliation(row) if row else None

    async def unfinished(self) -> list[str]:
        """Give the ids of those that are not complete and may still be, the oldest first."""
        rows = await self.db.fetch(
            "select id from reconciliations"
            " where state <> 'complete' and created_at > now() - interval '8 days' order by created_at"
        )
        return [row["id"] for row in rows]

    async def take(self, reconciliation_id: str) -> Reconciliation | None:
        """Give one that is not complete and keep others from it; None where another has it."""
        found = await self.db.fetchval(
            "select id from reconciliations where id = $1 and state <> 'complete'"
            " for no key update skip locked",
            reconciliation_id,
        )
        return await self.find(found) if found else None

    async def receive(self, reconciliation_id: str, service: str, records: int) -> bool:
        """Count records that a service sent again; False where there is nothing to reconcile any more."""
        known = await self.db.fetchval(
            "insert into reconciliation_services as known (reconciliation_id, service, received)"
            " select id, $2, $3 from reconciliations where id = $1 and state <> 'complete'"
            " on conflict (reconciliation_id, service)"
            " do update set received = known.received + excluded.received returning true",
            reconciliation_id,
            service,
            records,
        )
        return known is not None

    async def expect(self, reconciliation_id: str, service: str, records: int) -> None:
        """Note how many records a service sends again."""
        await self.db.execute(
            "insert into reconciliation_services (reconciliation_id, service, records)"
            " select id, $2, $3 from reconciliations where id = $1"
            " on conflict (reconciliation_id, service) do update set records = excluded.records",
            reconciliation_id,
            service,
            records,
        )

    async def known(self, accounts: Mapping[str, str]) -> dict[str, Known]:
        """Give what is known of requests, by their ids and those of the accounts that are to be charged."""
        rows = await self.db.fetch(
            """
            select reported.request_id as id, unrated.request_id is not null as is_set_aside, usage.*
            from unnest($1::text[], $2::text[]) as asked (request_id, account_id)
            join reported_requests as reported using (request_id)
            left join unrated_usage as unrated on unrated.request_id = asked.request_id
            left join usage on usage.account_id = asked.account_id
                and usage.finished_at = reported.finished_at and usage.request_id = asked.request_id
            """,
            list(accounts),
            [account_id if is_account_id(account_id) else "" for account_id in accounts.values()],
        )
        return {
            row["id"]: Known(read_charge(row) if row["request_id"] else None, row["is_set_aside"])
            for row in rows
        }

    async def keep_recounts(self, reconciliation_id: str, recounts: Sequence[Recount]) -> None:
        """Keep what came of comparisons; of several of a request one that matches is enough."""
        await self.db.execute(
            """
            insert into recounted_requests as kept (
                reconciliation_id, request_id, account_id, finished_at, nano_credits, outcome, differences
            )
            select $1, * from unnest(
                $2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::text[], $7::json[]
            )
            on conflict (reconciliation_id, request_id) do update set
                outcome = excluded.outcome,
                nano_credits = excluded.nano_credits,
                differences = excluded.differences
            where kept.outcome = 'mismatched' and excluded.outcome = 'matched'
            """,
            reconciliation_id,
            [one.usage.request_id for one in recounts],
            [one.usage.account_id if is_account_id(one.usage.account_id) else "" for one in recounts],
            [one.finished_at or one.usage.finished_at for one in recounts],
            [one.nano_credits for one in recounts],
            [one.outcome for one in recounts],
            [json.dumps(_differences(one)) for one in recounts],
        )

    async def count_unrated(self, reconciliation_id: str) -> int:
        """Tell how many of the missing requests are on their way to be charged."""
        count: int = await self.db.fetchval(
            "select count(*) from recounted_requests as missing where reconciliation_id = $1"
            " and outcome = 'missing' and not exists ("
            "  select from reported_requests where request_id = missing.request_id)",
            reconciliation_id,
        )
        return count

    async def finish(self, reconciliation_id: str, state: State, counts: Mapping[str, int]) -> None:
        """Note what came of a reconciliation."""
        await self.db.execute(
            "update reconciliations set state = $2, counts = $3, finished_at = now() where id = $1",
            reconciliation_id,
            state,
            json.dumps(dict(counts)),
        )

    async def findings(self, reconciliation_id: str, limit: int) -> list[Finding]:
        """Give the first findings, in the order of kind, account and reference."""
        rows = await self.db.fetch(
            "select kind, account_id, reference, detail from reconciliation_findings"
            " where reconciliation_id = $1 order by kind, account_id, reference limit $2",
            reconciliation_id,
            limit,
        )
        return [Finding(*row) for row in rows]

    async def forget_recounts(self, limit: int) -> int:
        """Drop requests that were sent again for what is complete or never will be; return how many."""
        status: str = await self.db.execute(
            "delete from recounted_requests where (reconciliation_id, request_id) in ("
            "  select reconciliation_id, request_id from reconciliations"
            "  join recounted_requests on reconciliation_id = id"
            "  where state = 'complete' or created_at < now() - interval '8 days' limit $1)",
            limit,
        )
        return int(status.split()[-1])


def _differences(one: Recount) -> dict[str, Any]:
    return {
        name: {"reported": reported, "rated": rated} for name, (reported, rated) in one.differences.items()
    }


def _reconciliation(row: Record) -> Reconciliation:
    return Reconciliation(
        id=row["id"],
        period=Period(row["start_at"], row["end_at"]),
        automatic=row["automatic"],
        state=State(row["state"]),
        created_at=row["created_at"],
        finished_at=row["finished_at"],
        waiting_for=tuple(row["waiting_for"]),
        received=row["received"],
        counts=json.loads(row["counts"]),
    )
