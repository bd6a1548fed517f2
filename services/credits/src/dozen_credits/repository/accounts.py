"""Accounts, and the grants in their ledger."""

from asyncpg import Record

from dozen_chassis.postgres import Repository
from dozen_credits.domain.accounts import Account, Balance, Grant


class AccountsRepository(Repository):
    """Accounts and grants."""

    async def open(self, account_id: str, name: str) -> Account | None:
        """Open an account; None where there is one already."""
        row = await self.db.fetchrow(
            "insert into accounts (id, name) values ($1, $2) on conflict do nothing returning *",
            account_id,
            name,
        )
        return _account(row) if row else None

    async def find(self, account_id: str) -> Account | None:
        """Give an account."""
        row = await self.db.fetchrow("select * from accounts where id = $1", account_id)
        return _account(row) if row else None

    async def page(self, after: str, limit: int) -> list[Account]:
        """Give the accounts that follow an id, in the order of their ids."""
        rows = await self.db.fetch("select * from accounts where id > $1 order by id limit $2", after, limit)
        return [_account(row) for row in rows]

    async def give(self, grant: Grant) -> tuple[Account, str] | None:
        """Post a grant; give the account and the grant's id, or None for a used key or an unknown account."""
        row = await self.db.fetchrow(
            """
            with given as (
                insert into grants (idempotency_key, account_id, nano_credits, reason)
                select $1, id, $3, $4 from accounts where id = $2
                on conflict do nothing
                returning *
            ), transferred as (
                insert into transfers (id, account_id, kind, debit, credit, nano_credits, reference, reason)
                select
                    transfer_id, account_id, 'grant', 'issued', 'available', nano_credits, idempotency_key,
                    reason
                from given
            )
            update accounts
            set available = available + given.nano_credits, version = version + 1, updated_at = now()
            from given
            where id = given.account_id
            returning accounts.*, given.transfer_id
            """,
            grant.idempotency_key,
            grant.account_id,
            grant.nano_credits,
            grant.reason,
        )
        return (_account(row), f"grant_{row['transfer_id'].hex}") if row else None

    async def find_grant(self, idempotency_key: str) -> Grant | None:
        """Give the grant that was made with a key."""
        row = await self.db.fetchrow(
            "select idempotency_key, account_id, nano_credits, reason from grants where idempotency_key = $1",
            idempotency_key,
        )
        return Grant(**row) if row else None


def _account(row: Record) -> Account:
    balance = Balance(row["id"], row["available"], row["version"])
    return Account(row["id"], row["name"], balance, row["created_at"], row["updated_at"])
