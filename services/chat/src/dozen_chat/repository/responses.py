"""SQL of stored responses."""

from collections.abc import Sequence
from datetime import timedelta

from dozen_chassis.postgres import Repository
from dozen_chat.domain.turns import MAX_CHAIN, Link, Turn

_LINK = "r.previous_id, r.conversation_id, r.known, r.context_bytes, r.input, r.output"


class ResponseRepository(Repository):
    """The stored responses."""

    async def write(self, turns: Sequence[Turn]) -> None:
        """Write what responses came to, with what they add to their conversations, all or nothing.

        A turn whose conversation is gone meanwhile is gone with it.
        """
        conversations = sorted({turn.conversation_id for turn in turns if turn.conversation_id})
        if not conversations:
            await _insert(self, turns)
            return
        async with self.transaction() as tx:
            rows = await tx.db.fetch(
                "select id from conversations where id = any($1::text[]) order by id for update",
                conversations,
            )
            alive = {None, *(row["id"] for row in rows)}
            turns = [turn for turn in turns if turn.conversation_id in alive]
            await _insert(tx, turns)
            await tx.db.execute(
                "insert into conversation_items (conversation_id, id, body) select conversation_id, id, body"
                " from unnest($1::text[], $2::text[], $3::bytea[]) with ordinality"
                "  as added (conversation_id, id, body, place) order by place",
                [turn.conversation_id for turn in turns for _ in turn.added],
                [item.id for turn in turns for item in turn.added],
                [item.body for turn in turns for item in turn.added],
            )
            await tx.db.execute(
                "update conversations set used_at = now(), turn = null, turn_ends_at = null"
                " where turn = any($1::text[])",
                [turn.response_id for turn in turns],
            )

    async def find(self, account: str, response_id: str) -> tuple[bytes, bytes] | None:
        """Give a response without its output, and that."""
        row = await self.db.fetchrow(
            "select body, output from responses where id = $2 and account_id = $1 and not deleted",
            account, response_id,
        )  # fmt: skip
        return (row["body"], row["output"]) if row else None

    async def find_links(self, account: str, response_ids: Sequence[str]) -> dict[str, Link]:
        """Give those of these responses that there are."""
        rows = await self.db.fetch(
            f"select {_LINK}, r.id from responses r"
            " where id = any($2::text[]) and account_id = $1 and not deleted",
            account, response_ids,
        )  # fmt: skip
        return {row["id"]: Link(*tuple(row)[:-1]) for row in rows}

    async def chain(self, account: str, response_id: str, most_bytes: int) -> list[Link]:
        """Give a response and those that it goes on from, the first one first; deleted ones too, inside.

        Nothing where there is no such response, or where all that was said is more than `most_bytes`.
        """
        rows = await self.db.fetch(
            "with recursive chain as ("
            "  select id, previous_id, 1 as length from responses"
            "   where id = $2 and account_id = $1 and not deleted and context_bytes <= $4"
            "  union all"
            "  select r.id, r.previous_id, length + 1 from chain join responses r on r.id = chain.previous_id"
            "   where r.account_id = $1 and length < $3)"
            f" select {_LINK} from chain join responses r using (id) order by length desc",
            account, response_id, MAX_CHAIN, most_bytes,
        )  # fmt: skip
        return [Link(*row) for row in rows]

    async def delete(self, account: str, response_id: str) -> bool:
        """Delete a response, or hide it while others go on from it; False where there is none."""
        found = await self.db.fetchval(
            "update responses set deleted = true where id = $2 and account_id = $1 and not deleted"
            " returning true",
            account, response_id,
        )  # fmt: skip
        await self.db.execute(
            "delete from responses r where id = $1 and deleted"
            " and not exists (select from responses where previous_id = r.id)",
            response_id,
        )
        return found is not None

    async def forget(self, older_than: timedelta, limit: int) -> int:
        """Drop responses of that age, and deleted ones, that none goes on from; return how many."""
        status: str = await self.db.execute(
            "delete from responses where id in ("
            "  select id from responses r where (deleted or created_at < now() - $1::interval)"
            "   and not exists (select from responses where previous_id = r.id) limit $2)",
            older_than, limit,
        )  # fmt: skip
        return int(status.split()[-1])


async def _insert(tx: Repository, turns: Sequence[Turn]) -> None:
    stored = [turn for turn in turns if turn.body is not None]
    await tx.db.execute(
        "insert into responses"
        " (id, account_id, conversation_id, known, previous_id, context_bytes, input, output, body)"
        " select * from unnest($1::text[], $2::text[], $3::text[], $4::int8[], $5::text[], $6::int8[],"
        "  $7::bytea[], $8::bytea[], $9::bytea[])",
        [turn.response_id for turn in stored],
        [turn.account for turn in stored],
        [turn.conversation_id for turn in stored],
        [turn.known for turn in stored],
        [turn.previous_id for turn in stored],
        [turn.context_bytes for turn in stored],
        [turn.input for turn in stored],
        [turn.output for turn in stored],
        [turn.body for turn in stored],
    )
