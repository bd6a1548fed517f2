"""Payments at a provider top up accounts, each once, however often and in whichever order it is told."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import prometheus_client

from dozen_credits.domain.accounts import LARGEST_AMOUNT
from dozen_credits.domain.payments import Receipt, Reversal, TopUp, worth
from dozen_credits.errors.accounts import AccountNotFound
from dozen_credits.errors.payments import TopUpRefused, TopUpTooLarge, UnknownCurrency, UnknownPayer
from dozen_credits.service.postings import Postings, PostingStore

log = logging.getLogger(__name__)

EVENTS = prometheus_client.Counter(
    "dozen_credits_payment_events", "Events of payment providers, by what became of them.", ["outcome"]
)
NOT_TAKEN_BACK = prometheus_client.Counter(
    "dozen_credits_not_taken_back_nano_credits",
    "Nano-credits of payments that were given back, but were not available any more.",
)


class PaymentStore(PostingStore, Protocol):
    """Payments, and the postings that they lead to."""

    async def take(self, payment: str) -> Receipt:
        """Give what is known of a payment, and keep others from it until the transaction ends."""
        ...

    async def note(self, receipt: Receipt) -> None:
        """Keep what is known of a payment that was taken."""
        ...


class Payments:
    """Grants what was paid for, and takes back what was given back."""

    def __init__(self, store: PaymentStore, *, rates: Mapping[str, int], low_balance: int) -> None:
        """`rates` are nano-credits for the smallest unit of each currency."""
        self._store = store
        self._rates = rates
        self._low_balance = low_balance

    async def receive(self, event: TopUp | Reversal | None) -> None:
        """Take what a provider tells; None stands for what is no business of ours."""
        match event:
            case TopUp():
                await self._top_up(event)
            case Reversal():
                await self._reverse(event)
            case None:
                EVENTS.labels("ignored").inc()

    async def _top_up(self, top_up: TopUp) -> None:
        try:
            async with self._store.transaction() as tx:
                receipt = await tx.take(top_up.payment)
                if receipt.account_id is not None:
                    EVENTS.labels("repeated").inc()
                    return
                receipt = receipt.topped_up(top_up, self._worth(top_up))
                try:
                    await Postings(tx, low_balance=self._low_balance).grant(receipt.grant())
                except AccountNotFound as error:
                    raise UnknownPayer() from error
                await tx.note(receipt)
                missing = await self._take_back(tx, receipt, receipt.reversed)
        except TopUpRefused as error:
            EVENTS.labels(error.code).inc()
            log.error("a payment tops up nothing", extra={"payment": top_up.payment, "reason": error.code})
            raise
        EVENTS.labels("topped_up").inc()
        _tell(receipt, missing)

    async def _reverse(self, reversal: Reversal) -> None:
        async with self._store.transaction() as tx:
            before = await tx.take(reversal.payment)
            if reversal.given_back <= before.given_back:
                EVENTS.labels("repeated").inc()
                return
            receipt = replace(before, given_back=reversal.given_back, collected=reversal.collected)
            await tx.note(receipt)
            missing = await self._take_back(tx, receipt, receipt.reversed - before.reversed)
        EVENTS.labels("given_back").inc()
        _tell(receipt, missing)

    async def _take_back(self, tx: PaymentStore, receipt: Receipt, nano_credits: int) -> int:
        """Take an amount back as far as it is available; return what is missing."""
        if receipt.account_id is None or not nano_credits:
            return 0
        balances = await tx.lock([receipt.account_id])
        taken = min(nano_credits, balances[receipt.account_id].available)
        if taken:
            await Postings(tx, low_balance=self._low_balance).adjust(receipt.taking_back(taken))
        return nano_credits - taken

    def _worth(self, top_up: TopUp) -> int:
        nano_credits = worth(top_up, self._rates)
        if nano_credits is None:
            raise UnknownCurrency()
        if nano_credits > LARGEST_AMOUNT:
            raise TopUpTooLarge()
        return nano_credits


def _tell(receipt: Receipt, missing: int) -> None:
    if missing:
        NOT_TAKEN_BACK.inc(missing)
        log.error(
            "a payment was given back, but its credits are spent",
            extra={"payment": receipt.payment, "account": receipt.account_id, "nano_credits": missing},
        )
