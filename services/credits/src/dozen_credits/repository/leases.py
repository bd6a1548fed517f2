"""Leases, and the calls that added to them; the lock of an account is that of its leases."""

from collections.abc import Collection, Mapping
from datetime import timedelta

from asyncpg import Record

from dozen_credits.domain.leases import Budget, Lease, LeaseWish, Period
from dozen_credits.repository.ledger import LedgerRepository


class LeasesRepository(LedgerRepository):
    """Leases of all accounts."""

    async def find(self, lease_id: str) -> Lease | None:
        """Give a lease, open or closed."""
        row = await self.db.fetchrow("select * from leases where id = $1", lease_id)
        return read_lease(row) if row else None

    async def find_extension(self, wish: LeaseWish) -> tuple[str, int] | None:
        """Give the lease to which a call with this token has added before, and how much."""
        row = await self.db.fetchrow(
            "select lease_id, nano_credits from lease_extensions"
            " where account_id = $1 and holder = $2 and request_token = $3",
            wish.account_id,
            wish.holder,
            wish.request_token,
        )
        return tuple(row) if row else None

    async def committed(self, account_id: str, budget: Budget) -> int:
        """Give what a key was charged in the period of its budget, with what all its open leases have."""
        committed = await self.db.fetchval(
            """
            select (
                select coalesce(sum(nano_credits), 0) from key_spending
                where account_id = $1 and key_id = $2
                    and ($3 or month = date_trunc('month', now() at time zone 'UTC'))
            ) + (
                select coalesce(sum(nano_credits - spent - returned), 0) from leases
                where account_id = $1 and key_id = $2 and closed_at is null
            )
            """,
            account_id,
            budget.key_id,
            budget.period is Period.TOTAL,
        )
        return int(committed)

    async def renew(self, wish: LeaseWish, lifetime: timedelta) -> Lease | None:
        """Move the expiry of the holder's open lease; None where it has none."""
        row = await self.db.fetchrow(
            "update leases set expires_at = now() + $4::interval"
            " where account_id = $1 and key_id = $2 and holder = $3 and closed_at is null returning *",
            wish.account_id,
            wish.key_id,
            wish.holder,
            lifetime,
        )
        return read_lease(row) if row else None

    async def extend(self, lease_id: str, wish: LeaseWish, nano_credits: int, lifetime: timedelta) -> Lease:
        """Add to the holder's open lease and move its expiry; open one with this id where it has none."""
        row = await self.db.fetchrow(
            """
            with extended as (
                insert into leases (id, account_id, key_id, holder, nano_credits, expires_at)
                values ($1, $2, $7, $3, $4, now() + $5::interval)
                on conflict (account_id, key_id, holder) where closed_at is null do update
                set nano_credits = leases.nano_credits + excluded.nano_credits,
                    expires_at = excluded.expires_at
                returning *
            ), noted as (
                insert into lease_extensions (account_id, holder, request_token, lease_id, nano_credits)
                select account_id, holder, $6, id, $4 from extended
            )
            select * from extended
            """,
            lease_id,
            wish.account_id,
            wish.holder,
            nano_credits,
            lifetime,
            wish.request_token,
            wish.key_id,
        )
        assert row is not None
        return read_lease(row)

    async def give_back(self, amounts: Mapping[str, int]) -> dict[str, Lease]:
        """Take amounts out of open leases, and close those of which nothing is left."""
        rows = await self.db.fetch(
            """
            update leases
            set returned = returned + amount,
                closed_at = case when spent + returned + amount = nano_credits then now() end
            from unnest($1::text[], $2::bigint[]) as freed (lease_id, amount)
            where id = lease_id and closed_at is null
            returning leases.*
            """,
            list(amounts),
            list(amounts.values()),
        )
        return {row["id"]: read_lease(row) for row in rows}

    async def accounts_with_overdue(self, grace: timedelta, limit: int) -> set[str]:
        """Give some accounts with open leases that expired longer ago than the grace."""
        rows = await self.db.fetch(
            "select account_id from leases where closed_at is null and expires_at < now() - $1::interval"
            " order by expires_at limit $2",
            grace,
            limit,
        )
        return {row["account_id"] for row in rows}

    async def overdue(self, account_ids: Collection[str], grace: timedelta, limit: int) -> list[Lease]:
        """Give open leases of accounts that expired longer ago than the grace, the oldest first."""
        rows = await self.db.fetch(
            "select * from leases where account_id = any($1) and closed_at is null"
            " and expires_at < now() - $2::interval order by expires_at limit $3",
            list(account_ids),
            grace,
            limit,
        )
        return [read_lease(row) for row in rows]

    async def forget(self, extensions: timedelta, leases: timedelta, limit: int) -> int:
        """Drop calls, and leases closed, longer ago than that; return how many, about so many at a time."""
        count: int = await self.db.fetchval(
            """
            with calls as (
                delete from lease_extensions where ctid = any(array(
                    select ctid from lease_extensions where created_at < now() - $1::interval limit $3
                ))
                returning 1
            ), closed as (
                delete from leases where id in (
                    select id from leases where closed_at < now() - $2::interval limit $3
                )
                returning 1
            )
            select (select count(*) from calls) + (select count(*) from closed)
            """,
            extensions,
            leases,
            limit,
        )
        return count


def read_lease(row: Record) -> Lease:
    """Read a lease from its row."""
    return Lease(
        id=row["id"],
        account_id=row["account_id"],
        key_id=row["key_id"],
        holder=row["holder"],
        nano_credits=row["nano_credits"],
        spent=row["spent"],
        returned=row["returned"],
        expires_at=row["expires_at"],
        closed_at=row["closed_at"],
    )
