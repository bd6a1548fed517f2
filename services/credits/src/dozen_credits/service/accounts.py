"""Accounts are opened, read and given credits."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol, Self

from google.protobuf.message import Message

from dozen.credits.v1 import credits_pb2
from dozen.credits.v1.credits_events_pb2 import AccountOpened, CreditsGranted
from dozen_credits.domain.accounts import LARGEST_AMOUNT, Account, Balance, Grant, is_account_id, is_text
from dozen_credits.errors import (
    AccountNotFound,
    IdempotencyKeyReused,
    InvalidAccount,
    InvalidGrant,
)

_ANNOUNCED_TOGETHER = 200


class AccountStore(Protocol):
    """Accounts and grants; changes and events are kept together in a transaction."""

    def transaction(self) -> AbstractAsyncContextManager[Self]:
        """Give the same store in one transaction."""
        ...

    async def emit(self, event: Message) -> None:
        """Publish an event once the transaction has committed."""
        ...

    async def open(self, account_id: str, name: str) -> Account | None:
        """Open an account; None where there is one already."""
        ...

    async def find(self, account_id: str) -> Account | None:
        """Give an account."""
        ...

    async def page(self, after: str, limit: int) -> list[Account]:
        """Give the accounts that follow an id, in the order of their ids."""
        ...

    async def give(self, grant: Grant) -> tuple[Account, str] | None:
        """Post a grant; give the account and the grant's id, or None for a used key or an unknown account."""
        ...

    async def find_grant(self, idempotency_key: str) -> Grant | None:
        """Give the grant that was made with a key."""
        ...


class Accounts:
    """Opens accounts and gives them credits."""

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

    async def grant(self, grant: Grant) -> Account:
        """Give an account credits, once per idempotency key; return the account as it is then."""
        if (
            not 0 < grant.nano_credits <= LARGEST_AMOUNT
            or not is_text(grant.idempotency_key, 255, least=1)
            or not is_text(grant.reason, 500)
        ):
            raise InvalidGrant()
        if not is_account_id(grant.account_id):
            raise AccountNotFound(param="account_id")
        async with self._store.transaction() as tx:
            if given := await tx.give(grant):
                account, grant_id = given
                await tx.emit(
                    CreditsGranted(
                        balance=balance_message(account.balance),
                        nano_credits=grant.nano_credits,
                        reason=grant.reason,
                        grant_id=grant_id,
                    )
                )
                return account
        made = await self._store.find_grant(grant.idempotency_key)
        if made and (made.account_id, made.nano_credits) != (grant.account_id, grant.nano_credits):
            raise IdempotencyKeyReused(param="idempotency_key")
        return await self.get(grant.account_id)

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
        id=account.id, name=account.name, available_nano_credits=account.balance.available
    )
    message.created_at.FromDatetime(account.created_at)
    return message


def balance_message(balance: Balance) -> credits_pb2.Balance:
    """Write a balance as the contract has it."""
    return credits_pb2.Balance(
        account_id=balance.account_id,
        available_nano_credits=balance.available,
        version=balance.version,
    )


def _account_opened(account: Account) -> AccountOpened:
    return AccountOpened(account=account_message(account), balance=balance_message(account.balance))
