"""SQL of conversations."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from dozen_chassis.postgres import Repository
from dozen_chat.domain.turns import Conversation, Selection, StoredItem

_FREE = "(turn is null or turn_ends_at < now())"


class ConversationRepository(Repository):
    """The conversations and their items."""

    async def create(
        self, account: str, conversation_id: str, metadata: Mapping[str, str], items: Sequence[StoredItem]
    ) -> Conversation:
        """Begin a conversation with these items."""
        async with self.transaction() as tx:
            row = await tx.db.fetchrow(
                "insert into conversations (id, account_id, metadata) values ($1, $2, $3)"
                " returning id, created_at, metadata",
                conversation_id, account, json.dumps(dict(metadata)),
            )  # fmt: skip
            await _append(tx, conversation_id, items)
        return _conversation(row)

    async def find(self, account: str, conversation_id: str) -> Conversation | None:
        """Give a conversation."""
        row = await self.db.fetchrow(
            "select id, created_at, metadata from conversations where id = $2 and account_id = $1",
            account, conversation_id,
        )  # fmt: skip
        return _conversation(row) if row else None

    async def update(
        self, account: str, conversation_id: str, metadata: Mapping[str, str]
    ) -> Conversation | None:
        """Give a conversation other metadata."""
        row = await self.db.fetchrow(
            "update conversations set metadata = $3, used_at = now() where id = $2 and account_id = $1"
            " returning id, created_at, metadata",
            account, conversation_id, json.dumps(dict(metadata)),
        )  # fmt: skip
        return _conversation(row) if row else None

    async def delete(self, account: str, conversation_id: str) -> bool:
        """Delete a conversation, its items and the responses in it; False where there is none."""
        found = await self.db.fetchval(
            "delete from conversations where id = $2 and account_id = $1 returning true",
            account, conversation_id,
        )  # fmt: skip
        return found is not None

    async def begin_turn(self, account: str, conversation_id: str, response_id: str, hold: timedelta) -> bool:
        """Let a response be given in a conversation; False where another is, or where there is none."""
        begun = await self.db.fetchval(
            "update conversations set turn = $3, turn_ends_at = now() + $4::interval, used_at = now()"
            f" where id = $2 and account_id = $1 and {_FREE} returning true",
            account, conversation_id, response_id, hold,
        )  # fmt: skip
        return begun is not None

    async def keep_turns(self, response_ids: Sequence[str], hold: timedelta) -> None:
        """Say that these responses are still being given."""
        await self.db.execute(
            "update conversations set turn_ends_at = now() + $2::interval where turn = any($1::text[])",
            response_ids, hold,
        )  # fmt: skip

    async def end_turn(self, response_id: str) -> None:
        """Let others be given in the conversation of a response that adds nothing to it."""
        await self.db.execute(
            "update conversations set turn = null, turn_ends_at = null where turn = $1", response_id
        )

    async def items(self, conversation_id: str, until: int | None = None) -> list[tuple[int, bytes]]:
        """Give the items of a conversation and their positions, or those up to a position."""
        rows = await self.db.fetch(
            "select position, body from conversation_items"
            " where conversation_id = $1 and ($2::int8 is null or position <= $2) order by position",
            conversation_id, until,
        )  # fmt: skip
        return [(row["position"], row["body"]) for row in rows]

    async def page(
        self, account: str, conversation_id: str, selection: Selection
    ) -> tuple[list[StoredItem], bool] | None:
        """Give a page of items, and whether there are more; None where `after` is none of them."""
        after = None
        if selection.after is not None:
            after = await self.db.fetchval(
                "select position from conversation_items i join conversations c on c.id = conversation_id"
                " where i.id = $3 and c.id = $2 and account_id = $1",
                account, conversation_id, selection.after,
            )  # fmt: skip
            if after is None:
                return None
        beyond, order = (">", "asc") if selection.ascending else ("<", "desc")
        rows = await self.db.fetch(
            "select id, body from conversation_items"
            f" where conversation_id = $1 and ($2::int8 is null or position {beyond} $2)"
            f" order by position {order} limit $3 + 1",
            conversation_id, after, selection.limit,
        )  # fmt: skip
        found = [StoredItem(row["id"], row["body"]) for row in rows]
        return found[: selection.limit], len(found) > selection.limit

    async def add_items(self, account: str, conversation_id: str, items: Sequence[StoredItem]) -> bool:
        """Put items into a conversation; False where a response is being given in it, or it is not there."""
        async with self.transaction() as tx:
            free = await tx.db.fetchval(
                "update conversations set used_at = now()"
                f" where id = $2 and account_id = $1 and {_FREE} returning true",
                account, conversation_id,
            )  # fmt: skip
            if free:
                await _append(tx, conversation_id, items)
        return free is not None

    async def size(self, conversation_id: str) -> tuple[int, int]:
        """Count the items of a conversation, and their bytes."""
        row = await self.db.fetchrow(
            "select count(*) as items, coalesce(sum(length(body)), 0)::int8 as bytes"
            " from conversation_items where conversation_id = $1",
            conversation_id,
        )
        assert row is not None
        return row["items"], row["bytes"]

    async def find_items(self, account: str, item_ids: Sequence[str]) -> dict[str, bytes]:
        """Give those of these items that are in conversations of an account."""
        rows = await self.db.fetch(
            "select i.id, body from conversation_items i join conversations c on c.id = conversation_id"
            " where i.id = any($2::text[]) and account_id = $1",
            account, item_ids,
        )  # fmt: skip
        return {row["id"]: row["body"] for row in rows}

    async def find_item(self, account: str, conversation_id: str, item_id: str) -> bytes | None:
        """Give an item of a conversation."""
        body: bytes | None = await self.db.fetchval(
            "select body from conversation_items i join conversations c on c.id = conversation_id"
            " where i.id = $3 and c.id = $2 and account_id = $1",
            account, conversation_id, item_id,
        )  # fmt: skip
        return body

    async def delete_item(self, account: str, conversation_id: str, item_id: str) -> bool:
        """Take an item out of a conversation; False where it is not in it."""
        found = await self.db.fetchval(
            "delete from conversation_items i using conversations c"
            " where c.id = conversation_id and i.id = $3 and c.id = $2 and account_id = $1 returning true",
            account, conversation_id, item_id,
        )  # fmt: skip
        return found is not None

    async def forget(self, older_than: timedelta, limit: int) -> int:
        """Drop conversations that were last used so long ago; return how many."""
        status: str = await self.db.execute(
            "delete from conversations where id in ("
            f"  select id from conversations where used_at < now() - $1::interval and {_FREE} limit $2)",
            older_than, limit,
        )  # fmt: skip
        return int(status.split()[-1])


async def _append(tx: Repository, conversation_id: str, items: Sequence[StoredItem]) -> None:
    await tx.db.execute(
        "insert into conversation_items (conversation_id, id, body) select $1, id, body"
        " from unnest($2::text[], $3::bytea[]) with ordinality as added (id, body, place) order by place",
        conversation_id, [item.id for item in items], [item.body for item in items],
    )  # fmt: skip


def _conversation(row: Any) -> Conversation:
    return Conversation(row["id"], row["created_at"], json.loads(row["metadata"]))
