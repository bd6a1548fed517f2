"""Payments at a provider."""

from dozen_credits.domain.payments import Receipt
from dozen_credits.repository.postings import PostingsRepository


class PaymentsRepository(PostingsRepository):
    """Payments, and the postings that they lead to.

    Transactions take a payment before its account, so that none waits for another that waits for it.
    """

    async def take(self, payment: str) -> Receipt:
        """Give what is known of a payment, and keep others from it until the transaction ends."""
        row = await self.db.fetchrow(
            "insert into payments (id) values ($1) on conflict (id) do update set id = excluded.id"
            " returning account_id, currency, amount, nano_credits, collected, given_back",
            payment,
        )
        assert row is not None
        return Receipt(payment, *row)

    async def note(self, receipt: Receipt) -> None:
        """Keep what is known of a payment that was taken."""
        await self.db.execute(
            "update payments set account_id = $2, currency = $3, amount = $4, nano_credits = $5,"
            " collected = $6, given_back = $7 where id = $1",
            receipt.payment,
            receipt.account_id,
            receipt.currency,
            receipt.amount,
            receipt.nano_credits,
            receipt.collected,
            receipt.given_back,
        )
