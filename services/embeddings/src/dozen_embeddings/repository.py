"""All SQL of the embeddings service."""

from collections.abc import Collection, Mapping
from datetime import timedelta

from dozen_chassis.postgres import Repository
from dozen_embeddings.domain import Embedding


class EmbeddingsRepository(Repository):
    """Vectors by content key."""

    async def find(self, keys: Collection[bytes]) -> dict[bytes, Embedding]:
        """Give those vectors that are remembered, and note (once a day) that they are still used."""
        rows = await self.db.fetch(
            "select key, vector, tokens, used_at < now() - interval '1 day' as stale"
            " from vectors where key = any($1)",
            list(keys),
        )
        if stale := [row["key"] for row in rows if row["stale"]]:
            await self.db.execute("update vectors set used_at = now() where key = any($1)", stale)
        return {row["key"]: Embedding(row["vector"], row["tokens"]) for row in rows}

    async def remember(self, embeddings: Mapping[bytes, Embedding]) -> None:
        """Keep vectors; those that are kept already stay as they are."""
        await self.db.execute(
            "insert into vectors (key, vector, tokens)"
            " select * from unnest($1::bytea[], $2::bytea[], $3::int[]) order by 1 on conflict do nothing",
            list(embeddings),
            [embedding.vector for embedding in embeddings.values()],
            [embedding.tokens for embedding in embeddings.values()],
        )

    async def forget_unused(self, unused: timedelta, limit: int) -> int:
        """Drop vectors that were not used for so long; return how many."""
        status: str = await self.db.execute(
            "delete from vectors where key in ("
            "  select key from vectors where used_at < now() - $1::interval limit $2)",
            unused,
            limit,
        )
        return int(status.split()[-1])

    async def forget_excess(self, keep: int, limit: int) -> int:
        """Drop the longest unused of more than `keep` vectors; return how many."""
        status: str = await self.db.execute(
            "delete from vectors where key in (select key from vectors order by used_at"
            " limit least($2, greatest(0, (select count(*) from vectors) - $1)))",
            keep,
            limit,
        )
        return int(status.split()[-1])
