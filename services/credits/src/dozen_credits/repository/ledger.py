"""The ledger: the only place where balances change.

Whoever changes what belongs to an account (its balance, leases, usage sums, postings) has locked it before;
accounts are locked in the order of their ids, so that none waits for another that waits for it.
"""

from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from typing import Self

import asyncpg
from asyncpg import Record

from dozen_chassis.postgres import PASSING, Repository
from dozen_credits.domain.accounts import Balance
from dozen_credits.domain.ledger import Transfer
from dozen_credits.errors.ledger import LedgerUnavailable


class LedgerRepository(Repository):
    """Balances, and the transfers that they are made of."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Self]:
        """Give the same repository in one transaction.

        Where that meets another one, or loses its connection, it raises `LedgerUnavailable`: messages are
        delivered again, however often, and calls may be made again.
        """
        try:
            async with super().transaction() as tx:
                yield tx
        except asyncpg.DataError:
            raise
        except PASSING as error:
            raise LedgerUnavailable() from error

    async def lock(self, account_ids: Collection[str]) -> dict[str, Balance]:
        """Keep others from changing accounts until the transaction ends; give the balances of those found."""
        rows = await self.db.fetch(
            "select * from accounts where id = any($1) order by id for no key update", list(account_ids)
        )
        return {row["id"]: balance(row) for row in rows}

    async def post(self, transfers: Sequence[Transfer]) -> dict[str, Balance]:
        """Post transfers; give the balances that changed by them."""
        if not transfers:
            return {}
        rows = await self.db.fetch(
            """
            with posted as (
                insert into transfers (account_id, kind, debit, credit, nano_credits, reference)
                select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[])
                returning account_id, debit, credit, nano_credits
            ), moved as (
                select
                    account_id,
                    sum(case book when 'available' then nano_credits else 0 end)::bigint as available,
                    sum(case book when 'leased' then nano_credits else 0 end)::bigint as leased
                from (
                    select account_id, credit as book, nano_credits from posted
                    union all
                    select account_id, debit, -nano_credits from posted
                ) as sides
                group by account_id
            )
            update accounts
            set
                available = accounts.available + moved.available,
                leased = accounts.leased + moved.leased,
                version = version + 1,
                updated_at = now()
            from moved
            where id = moved.account_id and (moved.available <> 0 or moved.leased <> 0)
            returning accounts.*
            """,
            [transfer.account_id for transfer in transfers],
            [transfer.kind for transfer in transfers],
            [transfer.debit for transfer in transfers],
            [transfer.credit for transfer in transfers],
            [transfer.nano_credits for transfer in transfers],
            [transfer.reference for transfer in transfers],
        )
        return {row["id"]: balance(row) for row in rows}


def balance(row: Record) -> Balance:
    """Read a balance from the row of its account."""
    return Balance(row["id"], row["available"], row["leased"], row["version"])
