"""Accounts."""

from asyncpg import Record

from dozen_credits.domain.accounts import Account
from dozen_credits.repository.ledger import LedgerRepository, balance


class AccountsRepository(LedgerRepository):
    """Accounts as they are opened and read."""

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


def _account(row: Record) -> Account:
    return Account(row["id"], row["name"], balance(row), row["created_at"], row["updated_at"])
