"""Accounts are opened and read."""

from typing import Protocol

from dozen.credits.v1 import credits_pb2
from dozen.credits.v1.credits_events_pb2 import AccountOpened
from dozen_credits.domain.accounts import Account, is_account_id, is_text
from dozen_credits.errors.accounts import AccountNotFound, InvalidAccount
from dozen_credits.service.ledger import LedgerStore, balance_message

_ANNOUNCED_TOGETHER = 200


class AccountStore(LedgerStore, Protocol):
    """Accounts."""

    async def open(self, account_id: str, name: str) -> Account | None:
        """Open an account; None where there is one already."""
        ...

    async def find(self, account_id: str) -> Account | None:
        """Give an account."""
        ...

    async def page(self, after: str, limit: int) -> list[Account]:
        """Give the accounts that follow an id, in the order of their ids."""
        ...


class Accounts:
    """Opens accounts and reads them."""

    def __init__(self, store: AccountStore) -> None:
        self._store = store

    async def open(self, account_id: str, name: str) -> Account:
        """Open an account; one that exists stays as it is."""
        if not is_account_id(account_id):
            raise InvalidAccount(param="account_id")
        if not is_text(name, 200):
            raise InvalidAccount(param="name")
        async with self._store.transaction() as tx:
            if opened := await tx.open(account_id, name):
                await tx.emit(_account_opened(opened))
                return opened
        return await self.get(account_id)

    async def get(self, account_id: str) -> Account:
        """Give an account with its balance."""
        found = await self._store.find(account_id) if is_account_id(account_id) else None
        if found is None:
            raise AccountNotFound(param="account_id")
        return found

    async def announce(self) -> None:
        """Tell of all accounts again, so that a service with an empty database comes to know them."""
        after = ""
        while page := await self._store.page(after, _ANNOUNCED_TOGETHER):
            async with self._store.transaction() as tx:
                for account in page:
                    await tx.emit(_account_opened(account))
            after = page[-1].id


def account_message(account: Account) -> credits_pb2.Account:
    """Write an account as the contract has it."""
    message = credits_pb2.Account(
        id=account.id,
        name=account.name,
        available_nano_credits=account.balance.available,
        leased_nano_credits=account.balance.leased,
    )
    message.created_at.FromDatetime(account.created_at)
    return message


def _account_opened(account: Account) -> AccountOpened:
    return AccountOpened(account=account_message(account), balance=balance_message(account.balance))
