"""Credits are granted, adjusted, refunded, and expire."""

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from typing import Protocol
from uuid import uuid4

from dozen.credits.v1.credits_events_pb2 import (
    BALANCE_CHANGE_ADJUSTMENT,
    BALANCE_CHANGE_EXPIRY,
    BALANCE_CHANGE_REFUND,
    BalanceChanged,
    CreditsGranted,
)
from dozen_credits.domain.accounts import Balance, is_account_id
from dozen_credits.domain.ledger import Book, Kind, Transfer
from dozen_credits.domain.metering import is_request_id
from dozen_credits.domain.postings import Lot, Posting, expire
from dozen_credits.errors.accounts import (
    AccountNotFound,
    IdempotencyKeyReused,
    InsufficientBalance,
    InvalidCorrection,
    InvalidGrant,
)
from dozen_credits.errors.metering import NothingToRefund, RequestNotFound
from dozen_credits.service.ledger import LedgerStore, balance_message, emit_alerts

_EXPIRED_TOGETHER = 100
_CHANGES = {Kind.ADJUSTMENT: BALANCE_CHANGE_ADJUSTMENT, Kind.REFUND: BALANCE_CHANGE_REFUND}


class PostingStore(LedgerStore, Protocol):
    """Postings, and what is left of the credits that they gave."""

    async def find(self, idempotency_key: str) -> Posting | None:
        """Give the posting that was made with a key."""
        ...

    async def keep(self, posting_id: str, posting: Posting) -> bool:
        """Keep a posting with all that it gives; False where another transaction has used its key."""
        ...

    async def find_charged(self, request_id: str) -> tuple[str, int] | None:
        """Give the account of a charged request, and what it paid that was not refunded."""
        ...

    async def count_refund(self, request_id: str, nano_credits: int) -> None:
        """Count a refund with the usage that it is for."""
        ...

    async def count_spent(self, account_ids: Collection[str]) -> None:
        """Take what accounts spent since the last count from what is left of their postings, in order."""
        ...

    async def accounts_with_expired(self, limit: int) -> set[str]:
        """Give some accounts with postings that expired, unless all they have is in leases."""
        ...

    async def expired(self, account_ids: Collection[str]) -> list[Lot]:
        """Give what is left of postings that expired, in the order in which it is spent."""
        ...

    async def take_back(self, lots: Collection[Lot]) -> None:
        """Reduce what is left of postings."""
        ...


class Postings:
    """Changes balances by request, each time once per idempotency key, and takes back what expires."""

    def __init__(self, store: PostingStore, *, low_balance: int) -> None:
        self._store = store
        self._low_balance = low_balance

    async def grant(self, grant: Posting) -> None:
        """Give an account credits."""
        if not grant.is_well_formed():
            raise InvalidGrant()
        if grant.expires_at is not None and grant.expires_at <= datetime.now(UTC):
            if await _is_made(self._store, grant):
                return
            raise InvalidGrant("A grant expires in the future.", param="expires_at")
        await self._post(grant)

    async def adjust(self, adjustment: Posting) -> None:
        """Correct a balance up or down; it takes no more than is available."""
        if not adjustment.is_well_formed():
            raise InvalidCorrection()
        await self._post(adjustment)

    async def refund(
        self, request_id: str, nano_credits: int, *, idempotency_key: str, reason: str, actor: str
    ) -> Posting:
        """Give back what a request paid: an amount, or with zero all that was not refunded yet."""
        charged = await self._store.find_charged(request_id) if is_request_id(request_id) else None
        if charged is None:
            raise RequestNotFound(param="request_id")
        refund = Posting(
            Kind.REFUND, idempotency_key, charged[0], nano_credits or 1, reason, actor, request_id
        )
        if not refund.is_well_formed():
            raise InvalidCorrection()
        async with self._store.transaction() as tx:
            balances = await tx.lock([refund.account_id])
            made = await tx.find(idempotency_key)
            if made is not None:
                if not replace(refund, nano_credits=nano_credits or made.nano_credits).repeats(made):
                    raise IdempotencyKeyReused(param="idempotency_key")
                return made
            charged = await tx.find_charged(request_id)  # as it is now that nobody else refunds it
            refundable = charged[1] if charged else 0
            refund = replace(refund, nano_credits=nano_credits or refundable)
            if not 0 < refund.nano_credits <= refundable:
                raise NothingToRefund(param="nano_credits")
            await tx.count_refund(request_id, refund.nano_credits)
            await self._write(tx, refund, balances)
        return refund

    async def expire(self) -> None:
        """Take back what is left of postings that expired, except what leases hold of it."""
        more = True
        while more:
            async with self._store.transaction() as tx:
                accounts = await tx.accounts_with_expired(_EXPIRED_TOGETHER)
                more = bool(accounts)
                before = await tx.lock(accounts)
                await tx.count_spent(accounts)
                available = {account_id: balance.available for account_id, balance in before.items()}
                taken = expire(await tx.expired(accounts), available)
                await tx.take_back(taken)
                transfers = [
                    Transfer(
                        lot.account_id,
                        Kind.EXPIRY,
                        Book.AVAILABLE,
                        Book.ISSUED,
                        lot.remaining,
                        lot.posting_id,
                    )
                    for lot in taken
                ]
                after = await tx.post(transfers)
                for lot in taken:
                    await tx.emit(
                        BalanceChanged(
                            balance=balance_message(after[lot.account_id]),
                            change=BALANCE_CHANGE_EXPIRY,
                            nano_credits=-lot.remaining,
                            reference=lot.posting_id,
                        )
                    )
                await emit_alerts(tx, before, after, self._low_balance)

    async def _post(self, posting: Posting) -> None:
        if not is_account_id(posting.account_id):
            raise AccountNotFound(param="account_id")
        async with self._store.transaction() as tx:
            balances = await tx.lock([posting.account_id])
            if await _is_made(tx, posting):
                return
            if not balances:
                raise AccountNotFound(param="account_id")
            if balances[posting.account_id].available + posting.nano_credits < 0:
                raise InsufficientBalance(param="nano_credits")
            await self._write(tx, posting, balances)

    async def _write(self, tx: PostingStore, posting: Posting, before: dict[str, Balance]) -> None:
        await tx.count_spent([posting.account_id])
        posting_id = f"{posting.kind}_{uuid4().hex}"
        if not await tx.keep(posting_id, posting):  # another account's, made just now
            raise IdempotencyKeyReused(param="idempotency_key")
        after = await tx.post([posting.transfer(posting_id)])
        balance = balance_message(after[posting.account_id])
        if posting.kind is Kind.GRANT:
            await tx.emit(
                CreditsGranted(
                    balance=balance,
                    nano_credits=posting.nano_credits,
                    reason=posting.reason,
                    grant_id=posting_id,
                )
            )
        else:
            await tx.emit(
                BalanceChanged(
                    balance=balance,
                    change=_CHANGES[posting.kind],
                    nano_credits=posting.nano_credits,
                    reason=posting.reason,
                    actor=posting.actor,
                    reference=posting_id,
                    request_id=posting.request_id or "",
                )
            )
        await emit_alerts(tx, before, after, self._low_balance)


async def _is_made(store: PostingStore, posting: Posting) -> bool:
    made = await store.find(posting.idempotency_key)
    if made is not None and not posting.repeats(made):
        raise IdempotencyKeyReused(param="idempotency_key")
    return made is not None
