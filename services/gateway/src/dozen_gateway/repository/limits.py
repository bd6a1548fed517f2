"""Rate limits in the database: what all replicas share, and the limits of accounts."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import asyncpg

from dozen_chassis.postgres import FAILURES, Connection
from dozen_gateway.domain.allotment import Allotment, Answer, Exchange
from dozen_gateway.domain.gcra import Bucket, Low
from dozen_gateway.domain.limits import Measure, RateLimits, Subject
from dozen_gateway.domain.stock import SLOT_SECONDS
from dozen_gateway.errors.decisions import LimitsUnavailable
from dozen_gateway.repository.followed import FollowedRepository

_LOCK = """
    with locked as materialized (
        select subject, tat, lows from rate_limits where subject = any($1) order by subject for update
    )
    -- Read after the lock, row by row. A replica that stops meanwhile holds up the others for a moment only.
    select subject, tat, lows, (extract(epoch from clock_timestamp()) * 1000000000)::bigint as now,
        set_config('idle_in_transaction_session_timeout', '500', true)
    from locked
"""

_WRITE = """
    with buckets as (
        update rate_limits set tat = new.tat, lows = new.lows
        from unnest($1::text[], $2::bigint[], $3::jsonb[]) as new (subject, tat, lows)
        where rate_limits.subject = new.subject
    ), vacated as (
        delete from concurrency_slots
        using unnest($5::text[], $6::bigint[]) as new (subject, slots)
        where concurrency_slots.subject = new.subject and holder = $4 and new.slots = 0
    )
    insert into concurrency_slots (subject, holder, slots, expires_at)
    select subject, $4, slots, clock_timestamp() + make_interval(secs => $7)
    from unnest($5::text[], $6::bigint[]) as new (subject, slots) where slots > 0
    on conflict (subject, holder) do update set slots = excluded.slots, expires_at = excluded.expires_at
"""


class LimitsRepository(FollowedRepository):
    """What is drawn from each limit, and the limits of accounts."""

    async def exchange(self, holder: str, exchange: Exchange) -> Answer:
        """Take back and share out, all in one transaction; raise `LimitsUnavailable` where that is unknown.

        The rows of all subjects are locked in one order, so that replicas never wait for each other in a
        circle, and the clock is the database's, so that those of the replicas do not matter.
        """
        subjects = {str(subject): subject for subject in exchange.subjects()}
        try:
            while True:
                async with self.transaction() as tx:
                    rows = await tx.db.fetch(_LOCK, list(subjects))
                    if len(rows) == len(subjects):
                        return await _settle(tx.db, holder, exchange, subjects, rows)
                await self.db.execute(
                    "insert into rate_limits (subject) select * from unnest($1::text[]) order by 1"
                    " on conflict do nothing",
                    list(subjects),
                )
        except FAILURES as error:
            raise LimitsUnavailable() from error

    async def forget_limits(self, limit: int = 10_000) -> int:
        """Drop buckets that have been full for an hour and slots that have expired; return how many."""
        status: str = await self.db.execute(
            "with slots as (delete from concurrency_slots where (subject, holder) in ("
            "  select subject, holder from concurrency_slots where expires_at < clock_timestamp() limit $1))"
            " delete from rate_limits where subject in ("
            "  select subject from rate_limits"
            "  where tat < extract(epoch from clock_timestamp() - interval '1 hour') * 1000000000"
            "   and not exists (select from concurrency_slots where subject = rate_limits.subject)"
            "  order by subject limit $1 for update skip locked)",
            limit,
        )
        return int(status.split()[-1])

    async def set_account_limits(self, account: str, model: str, limits: RateLimits) -> None:
        """Replace the limits of an account, with all its models (no name) or one, and tell every replica."""
        async with self.transaction() as tx:
            if limits == RateLimits():
                await tx.db.execute(
                    "delete from account_limits where account_id = $1 and model = $2", account, model
                )
            else:
                await tx.db.execute(
                    "insert into account_limits values ($1, $2, $3, $4, $5)"
                    " on conflict (account_id, model) do update"
                    " set requests_per_minute = excluded.requests_per_minute,"
                    "  tokens_per_minute = excluded.tokens_per_minute,"
                    "  concurrent_requests = excluded.concurrent_requests",
                    account, model, limits.requests_per_minute, limits.tokens_per_minute,
                    limits.concurrent_requests,
                )  # fmt: skip
            await tx.tell_replicas("account_limits", [account])

    async def account_limits(self, account: str) -> Mapping[str, RateLimits]:
        """Give the limits of an account, by model."""
        return (await account_limits(self.db, [account]))[account]


async def account_limits(
    db: asyncpg.Pool | Connection, ids: Collection[str] | None
) -> dict[str, dict[str, RateLimits]]:
    """Give the limits of accounts by model, with no name for all models; without ids, of all accounts."""
    found: dict[str, dict[str, RateLimits]] = {account: {} for account in ids or ()}
    if ids is None or found:
        query = "select * from account_limits where $1::text[] is null or account_id = any($1)"
        for row in await db.fetch(query, None if ids is None else list(ids)):
            found.setdefault(row["account_id"], {})[row["model"]] = RateLimits(
                row["requests_per_minute"], row["tokens_per_minute"], row["concurrent_requests"]
            )
    return found


async def _settle(
    db: asyncpg.Pool | Connection,
    holder: str,
    exchange: Exchange,
    subjects: Mapping[str, Subject],
    rows: Sequence[asyncpg.Record],
) -> Answer:
    buckets = {
        subjects[row["subject"]]: _bucket(row)
        for row in rows
        if subjects[row["subject"]].measure is not Measure.CONCURRENT
    }
    others: dict[Subject, int] = {}
    if exchange.held:
        found = await db.fetch(
            "select subject, sum(slots)::bigint as slots from concurrency_slots"
            " where subject = any($1) and holder <> $2 and expires_at > clock_timestamp() group by subject",
            [str(subject) for subject in exchange.held], holder,
        )  # fmt: skip
        others = {subjects[row["subject"]]: row["slots"] for row in found}
    allotment = Allotment(buckets, others, exchange.held)
    answer = allotment.settle(exchange, max(row["now"] for row in rows))
    await db.execute(
        _WRITE,
        [str(subject) for subject in allotment.buckets],
        [bucket.tat for bucket in allotment.buckets.values()],
        [json.dumps(bucket.lows) for bucket in allotment.buckets.values()],
        holder,
        [str(subject) for subject in allotment.slots],
        list(allotment.slots.values()),
        SLOT_SECONDS,
    )
    return answer


def _bucket(row: Any) -> Bucket:
    return Bucket(row["tat"], tuple(Low(at, lack) for at, lack in json.loads(row["lows"])))
