"""Leases are acquired, released and, where their holders vanish, closed."""

import logging
from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import NamedTuple, Protocol
from uuid import uuid4

import prometheus_client

from dozen.credits.v1 import credits_pb2
from dozen_credits.domain.accounts import LARGEST_AMOUNT, Balance, is_account_id, is_text
from dozen_credits.domain.leases import Budget, Lease, LeaseWish, addition
from dozen_credits.domain.ledger import Book, Kind, Transfer
from dozen_credits.errors.accounts import AccountNotFound
from dozen_credits.errors.leases import InvalidLease, LeaseNotFound
from dozen_credits.service.ledger import LedgerStore

log = logging.getLogger(__name__)

ABANDONED = prometheus_client.Counter(
    "dozen_credits_abandoned_lease_nano_credits", "Nano-credits that came back from leases of lost holders."
)

_LONGEST_TEXT = 128
_CLOSED_TOGETHER = 200
_EXTENSIONS_KEPT = timedelta(days=1)
_LEASES_KEPT = timedelta(days=90)


class LeaseStore(LedgerStore, Protocol):
    """Leases, and the calls that added to them; the lock of an account is that of its leases."""

    async def find(self, lease_id: str) -> Lease | None:
        """Give a lease, open or closed."""
        ...

    async def find_extension(self, wish: LeaseWish) -> tuple[str, int] | None:
        """Give the lease to which a call with this token has added before, and how much."""
        ...

    async def committed(self, account_id: str, budget: Budget) -> int:
        """Give what a key was charged in the period of its budget, with what all its open leases have."""
        ...

    async def renew(self, wish: LeaseWish, lifetime: timedelta) -> Lease | None:
        """Move the expiry of the holder's open lease; None where it has none."""
        ...

    async def extend(self, lease_id: str, wish: LeaseWish, nano_credits: int, lifetime: timedelta) -> Lease:
        """Add to the holder's open lease and move its expiry; open one with this id where it has none."""
        ...

    async def give_back(self, amounts: Mapping[str, int]) -> dict[str, Lease]:
        """Take amounts out of open leases, and close those of which nothing is left."""
        ...

    async def accounts_with_overdue(self, grace: timedelta, limit: int) -> set[str]:
        """Give some accounts with open leases that expired longer ago than the grace."""
        ...

    async def overdue(self, account_ids: Collection[str], grace: timedelta, limit: int) -> list[Lease]:
        """Give open leases of accounts that expired longer ago than the grace, the oldest first."""
        ...

    async def forget(self, extensions: timedelta, leases: timedelta, limit: int) -> int:
        """Drop calls, and leases closed, longer ago than that; return how many, about so many at a time."""
        ...


class Acquired(NamedTuple):
    """What a call that acquires comes to."""

    lease: Lease | None
    added: int
    balance: Balance
    budget_left: int | None
    """What the key may still spend beyond its leases; None where it has no budget."""


class Leases:
    """Moves parts of balances into leases, and back."""

    def __init__(self, store: LeaseStore, *, lifetime: timedelta, longest_request: timedelta) -> None:
        self._store = store
        self.lifetime = lifetime
        self._longest_request = longest_request

    async def acquire(self, wish: LeaseWish) -> Acquired:
        """Open, extend or renew the lease of a holder; once per request token it adds something.

        Of a balance, and of a budget, no more is ever leased than there is, whoever asks how often.
        """
        if not is_text(wish.holder, _LONGEST_TEXT, least=1):
            raise InvalidLease(param="holder")
        if not (0 <= wish.needed <= LARGEST_AMOUNT and 0 <= wish.wanted <= LARGEST_AMOUNT):
            raise InvalidLease(param="needed_nano_credits")
        if not is_text(wish.request_token, _LONGEST_TEXT, least=wish.needed > 0):
            raise InvalidLease(param="request_token")
        if wish.budget and not is_text(wish.key_id, _LONGEST_TEXT, least=1):
            raise InvalidLease(param="budget.key_id")
        if wish.budget and wish.budget.nano_credits < 0:
            raise InvalidLease(param="budget.nano_credits")
        if not is_account_id(wish.account_id):
            raise AccountNotFound(param="account_id")
        async with self._store.transaction() as tx:
            locked = await tx.lock([wish.account_id])
            if not locked:
                raise AccountNotFound(param="account_id")
            balance, budget_left = locked[wish.account_id], None
            if wish.budget:
                committed = await tx.committed(wish.account_id, wish.budget)
                budget_left = max(0, wish.budget.nano_credits - committed)
            there_is = balance.available if budget_left is None else min(balance.available, budget_left)
            extension = await tx.find_extension(wish)
            amount = 0 if extension else addition(there_is, wish.needed, wish.wanted)
            if amount == 0:
                lease = await tx.renew(wish, self.lifetime)
                repeats = extension is not None and lease is not None and lease.id == extension[0]
                added = extension[1] if extension and repeats else 0
                return Acquired(lease, added, balance, budget_left)
            lease = await tx.extend(f"lease_{uuid4().hex}", wish, amount, self.lifetime)
            moved = await tx.post(
                [Transfer(lease.account_id, Kind.LEASE, Book.AVAILABLE, Book.LEASED, amount, lease.id)]
            )
            if budget_left is not None:
                budget_left -= amount
            return Acquired(lease, amount, moved[wish.account_id], budget_left)

    async def release(self, lease_id: str, held: int) -> Lease:
        """Return what is left in a lease beyond what is held."""
        if held < 0:
            raise InvalidLease(param="held_nano_credits")
        async with self._store.transaction() as tx:
            found = await tx.find(lease_id) if is_text(lease_id, _LONGEST_TEXT) else None
            if found is None:
                raise LeaseNotFound(param="lease_id")
            await tx.lock([found.account_id])
            lease = await tx.find(lease_id)  # as it is now that nobody changes it
            if lease is None or lease.closed_at or lease.left < held:
                return lease or found
            return (await _give_back(tx, {lease: lease.left - held}))[lease_id]

    async def close_overdue(self) -> None:
        """Close leases that expired longer ago than any request runs; what is left of them goes back."""
        more = True
        while more:
            async with self._store.transaction() as tx:
                accounts = await tx.accounts_with_overdue(self._longest_request, _CLOSED_TOGETHER)
                more = bool(accounts)
                await tx.lock(accounts)
                overdue = await tx.overdue(accounts, self._longest_request, _CLOSED_TOGETHER)
                await _give_back(tx, {lease: lease.left for lease in overdue})
            for lease in overdue:
                ABANDONED.inc(lease.left)
                log.info("a lease is closed", extra={"lease": lease.id, "holder": lease.holder})
        while await self._store.forget(_EXTENSIONS_KEPT, _LEASES_KEPT, _CLOSED_TOGETHER):
            pass


async def _give_back(tx: LeaseStore, amounts: Mapping[Lease, int]) -> dict[str, Lease]:
    leases = await tx.give_back({lease.id: amount for lease, amount in amounts.items()})
    await tx.post(
        [
            Transfer(lease.account_id, Kind.RELEASE, Book.LEASED, Book.AVAILABLE, amount, lease.id)
            for lease, amount in amounts.items()
            if amount
        ]
    )
    return leases


def lease_message(lease: Lease) -> credits_pb2.Lease:
    """Write a lease as the contract has it."""
    message = credits_pb2.Lease(
        id=lease.id,
        account_id=lease.account_id,
        key_id=lease.key_id,
        holder=lease.holder,
        nano_credits=lease.nano_credits,
        spent_nano_credits=lease.spent,
        returned_nano_credits=lease.returned,
    )
    message.expires_at.FromDatetime(lease.expires_at)
    if lease.closed_at:
        message.closed_at.FromDatetime(lease.closed_at)
    return message
