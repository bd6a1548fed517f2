"""What is posted by request: grants, adjustments and refunds; and what expires of them."""

from collections.abc import Collection

from dozen_credits.domain.ledger import Kind
from dozen_credits.domain.postings import Lot, Posting
from dozen_credits.repository.ledger import LedgerRepository


class PostingsRepository(LedgerRepository):
    """Postings, and what is left of the credits that they gave."""

    async def find(self, idempotency_key: str) -> Posting | None:
        """Give the posting that was made with a key."""
        row = await self.db.fetchrow("select * from postings where idempotency_key = $1", idempotency_key)
        if row is None:
            return None
        return Posting(
            kind=Kind(row["kind"]),
            idempotency_key=row["idempotency_key"],
            account_id=row["account_id"],
            nano_credits=row["nano_credits"],
            reason=row["reason"],
            actor=row["actor"],
            request_id=row["request_id"],
            expires_at=row["expires_at"],
            priority=row["priority"],
        )

    async def keep(self, posting_id: str, posting: Posting) -> bool:
        """Keep a posting with all that it gives; False where another transaction has used its key."""
        kept = await self.db.fetchval(
            """
            insert into postings (
                id, kind, idempotency_key, account_id, nano_credits, reason, actor, request_id, finished_at,
                priority, expires_at, remaining
            )
            values (
                $1, $2, $3, $4, $5::bigint, $6, $7, $8,
                (select finished_at from reported_requests where request_id = $8),
                $9, $10, greatest($5::bigint, 0)
            )
            on conflict (idempotency_key) do nothing
            returning true
            """,
            posting_id,
            posting.kind,
            posting.idempotency_key,
            posting.account_id,
            posting.nano_credits,
            posting.reason,
            posting.actor,
            posting.request_id,
            posting.priority,
            posting.expires_at,
        )
        return kept is not None

    async def find_charged(self, request_id: str) -> tuple[str, int] | None:
        """Give the account of a charged request, and what it paid that was not refunded."""
        row = await self.db.fetchrow(
            "select account_id, nano_credits - written_off - refunded from reported_requests"
            " join usage using (request_id, finished_at) where request_id = $1",
            request_id,
        )
        return (row[0], row[1]) if row else None

    async def count_refund(self, request_id: str, nano_credits: int) -> None:
        """Count a refund with the usage that it is for."""
        await self.db.execute(
            "update usage set refunded = refunded + $2 from reported_requests as reported"
            " where reported.request_id = $1"
            " and usage.request_id = $1 and usage.finished_at = reported.finished_at",
            request_id,
            nano_credits,
        )

    async def count_spent(self, account_ids: Collection[str]) -> None:
        """Take what accounts spent since the last count from what is left of their postings, in order."""
        await self.db.execute(
            """
            with lots as (
                select
                    account_id,
                    id,
                    remaining,
                    sum(remaining) over (partition by account_id) as all_remaining,
                    sum(remaining) over (
                        partition by account_id order by priority, expires_at nulls last, created_at, id
                    ) as remaining_to_here
                from postings where account_id = any($1) and remaining > 0
            )
            update postings
            set remaining = lots.remaining_to_here - greatest(
                lots.remaining_to_here - lots.remaining,
                least(lots.remaining_to_here, lots.all_remaining - accounts.available - accounts.leased)
            )
            from lots join accounts on accounts.id = lots.account_id
            where postings.id = lots.id
                and lots.all_remaining - accounts.available - accounts.leased
                    > lots.remaining_to_here - lots.remaining
            """,
            list(account_ids),
        )

    async def accounts_with_expired(self, limit: int) -> set[str]:
        """Give some accounts with postings that expired, unless all they have is in leases."""
        rows = await self.db.fetch(
            "select distinct account_id from postings join accounts on accounts.id = account_id"
            " where remaining > 0 and expires_at <= now() and (available > 0 or leased = 0) limit $1",
            limit,
        )
        return {row["account_id"] for row in rows}

    async def expired(self, account_ids: Collection[str]) -> list[Lot]:
        """Give what is left of postings that expired, in the order in which it is spent."""
        rows = await self.db.fetch(
            "select id, account_id, remaining from postings"
            " where account_id = any($1) and remaining > 0 and expires_at <= now()"
            " order by account_id, priority, expires_at, created_at, id",
            list(account_ids),
        )
        return [Lot(row["id"], row["account_id"], row["remaining"]) for row in rows]

    async def take_back(self, lots: Collection[Lot]) -> None:
        """Reduce what is left of postings."""
        await self.db.execute(
            "update postings set remaining = postings.remaining - taken.amount"
            " from unnest($1::text[], $2::bigint[]) as taken (posting_id, amount) where id = posting_id",
            [lot.posting_id for lot in lots],
            [lot.remaining for lot in lots],
        )
