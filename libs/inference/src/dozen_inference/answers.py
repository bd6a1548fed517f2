"""The table of answers that are given again, in the database of the service that gives them."""

from datetime import timedelta

from dozen_chassis.postgres import Repository


class AnswerRepository(Repository):
    """The table `cached_answers`."""

    async def find(self, key: bytes) -> bytes | None:
        """Give an answer that is kept and not too old."""
        found: bytes | None = await self.db.fetchval(
            "select answer from cached_answers where key = $1 and expires_at > now()", key
        )
        return found

    async def keep(self, key: bytes, answer: bytes, lifetime: timedelta) -> None:
        """Keep an answer in place of an older one."""
        await self.db.execute(
            "insert into cached_answers (key, answer, expires_at) values ($1, $2, now() + $3::interval)"
            " on conflict (key) do update set answer = excluded.answer, expires_at = excluded.expires_at",
            key,
            answer,
            lifetime,
        )

    async def forget(self, keep: int, limit: int) -> int:
        """Drop answers that are too old, and those next to it of more than `keep`; return how many."""
        status: str = await self.db.execute(
            "delete from cached_answers where key in ("
            "  (select key from cached_answers where expires_at <= now() limit $2) union"
            "  (select key from cached_answers order by expires_at"
            "   limit least($2, greatest(0, (select count(*) from cached_answers) - $1))))",
            keep,
            limit,
        )
        return int(status.split()[-1])
