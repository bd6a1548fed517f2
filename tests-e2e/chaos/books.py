"""The books of a run, read from the databases."""

from collections.abc import Sequence
from typing import Any

import asyncpg

from chaos.facts import Balance, Books, Lease, Transfer, UsageRow
from dozen_local.environment import database_dsn
from dozen_local.platform import Platform

_USAGE = """
    select
        usage.request_id, usage.account_id, operation, usage.nano_credits, written_off,
        coalesce(
            leases.closed_at < rated_at
                and leases.closed_at >= leases.expires_at + make_interval(secs => $2),
            false
        ) as lease_was_swept
    from usage left join leases on leases.id = usage.lease_id
    where usage.account_id = any($1)
"""
_SUMS = """
    select kind, account_id, sum(nano_credits)::bigint as amount from (
        select account_id, step as kind, nano_credits from usage_sums
        union all
        select account_id, 'key', nano_credits from key_spending
        union all
        select account_id, 'day of posting', charged from invoice_days
    ) as sums
    where account_id = any($1) group by kind, account_id
"""
_SET_ASIDE = """
    select request_id || ' (' || reason || ')' from unrated_usage
    union all
    select event_id || ' (' || error || ')' from dead_letters
"""


async def read_books(platform: Platform, accounts: Sequence[str], longest_request_seconds: float) -> Books:
    """Read all there is of some accounts, as of one moment."""
    connection = await connect(platform, "credits")
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return await _read(connection, accounts, longest_request_seconds)
    finally:
        await connection.close()


async def connect(platform: Platform, service: str) -> Any:
    """Connect to the database of a service."""
    return await asyncpg.connect(database_dsn(service, platform.layout, platform.credentials), timeout=10)


async def _read(connection: Any, accounts: Sequence[str], longest_request_seconds: float) -> Books:
    balances = await connection.fetch(
        "select id, available, leased from accounts where id = any($1)", accounts
    )
    transfers = await connection.fetch(
        "select account_id, debit, credit, nano_credits, reference from transfers where account_id = any($1)",
        accounts,
    )
    usage = await connection.fetch(_USAGE, accounts, longest_request_seconds)
    leases = await connection.fetch(
        "select id, account_id, nano_credits - spent - returned as left,"
        " extract(epoch from now() - expires_at)::float8 as past"
        " from leases where closed_at is null and account_id = any($1)",
        accounts,
    )
    sums = await connection.fetch(_SUMS, accounts)
    return Books(
        balances={row["id"]: Balance(row["available"], row["leased"]) for row in balances},
        transfers=[Transfer(*row) for row in transfers],
        usage=[UsageRow(*row) for row in usage],
        open_leases=[Lease(*row) for row in leases],
        sums={(row["kind"], row["account_id"]): row["amount"] for row in sums},
        ledger_sum=await connection.fetchval("select coalesce(sum(nano_credits), 0)::bigint from entries"),
        set_aside=[row[0] for row in await connection.fetch(_SET_ASIDE)],
    )
