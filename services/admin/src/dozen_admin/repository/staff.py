"""Sessions and the audit log."""

from datetime import datetime

from dozen_admin.domain.staff import Action
from dozen_chassis.postgres import Repository


class StaffRepository(Repository):
    """Sessions by their keys, and the audit log."""

    async def one_at_a_time(self, address: str) -> None:
        """Let no other transaction go beyond this for the same address, until this one ends."""
        await self.db.execute("select pg_advisory_xact_lock(hashtext($1))", address)

    async def log(self, action: Action) -> None:
        """Add an entry to the audit log."""
        await self.db.execute(
            "insert into audit_log (id, action, actor, address, taken_at) values ($1, $2, $3, $4, $5)",
            action.id, action.action, action.actor, action.address, action.taken_at,
        )  # fmt: skip

    async def actions_since(self, action: str, address: str, since: datetime) -> list[datetime]:
        """Give the times of an action from an address since a moment."""
        rows = await self.db.fetch(
            "select taken_at from audit_log where action = $1 and address = $2 and taken_at > $3",
            action, address, since,
        )  # fmt: skip
        return [row["taken_at"] for row in rows]

    async def actions(self, *, after: str | None, limit: int) -> list[Action]:
        """Give the newest entries of the audit log, after one."""
        rows = await self.db.fetch(
            "select id, action, actor, address, taken_at from audit_log"
            " where $1::text is null or number < (select number from audit_log where id = $1)"
            " order by number desc limit $2",
            after, limit,
        )  # fmt: skip
        return [Action(**row) for row in rows]

    async def begin(self, key: bytes, actor: str, expires_at: datetime) -> None:
        """Keep a session."""
        await self.db.execute(
            "insert into sessions (key, actor, expires_at) values ($1, $2, $3)", key, actor, expires_at
        )

    async def actor(self, key: bytes, now: datetime) -> str | None:
        """Give who has a session that has not expired."""
        actor: str | None = await self.db.fetchval(
            "select actor from sessions where key = $1 and expires_at > $2", key, now
        )
        return actor

    async def end(self, key: bytes) -> None:
        """Drop a session."""
        await self.db.execute("delete from sessions where key = $1", key)

    async def forget_sessions(self, before: datetime, limit: int) -> int:
        """Drop sessions that expired before a moment; return how many."""
        status: str = await self.db.execute(
            "delete from sessions where key in (select key from sessions where expires_at < $1 limit $2)",
            before, limit,
        )  # fmt: skip
        return int(status.split()[-1])

    async def forget_actions(self, before: datetime, limit: int) -> int:
        """Drop entries of the audit log from before a moment; return how many."""
        status: str = await self.db.execute(
            "delete from audit_log where number in ("
            "  select number from audit_log where taken_at < $1 limit $2)",
            before, limit,
        )  # fmt: skip
        return int(status.split()[-1])
