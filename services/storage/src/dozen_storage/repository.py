"""All SQL of the storage service."""

from datetime import timedelta

import asyncpg

from dozen_chassis.postgres import Repository
from dozen_storage.domain import File

_COLUMNS = "id, account_id, filename, purpose, content_type, bytes, sha256, created_at, expires_at"
_PRESENT = "(expires_at is null or expires_at > now())"


class FilesRepository(Repository):
    """Files, what they take, and objects that no file owns."""

    async def add(self, file: File, idempotency_key: str | None) -> bool:
        """Add a file; False where the account has used the idempotency key before."""
        added = await self.db.fetchval(
            f"insert into files ({_COLUMNS}, idempotency_key)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
            " on conflict (account_id, idempotency_key) do nothing returning true",
            file.id, file.account_id, file.filename, file.purpose, file.content_type, file.bytes,
            file.sha256, file.created_at, file.expires_at, idempotency_key,
        )  # fmt: skip
        return added is not None

    async def find(self, account_id: str, file_id: str) -> File | None:
        """Find a file of an account that has not expired."""
        row = await self.db.fetchrow(
            f"select {_COLUMNS} from files where account_id = $1 and id = $2 and {_PRESENT}",
            account_id, file_id,
        )  # fmt: skip
        return _file(row) if row else None

    async def find_repeated(self, account_id: str, idempotency_key: str) -> File | None:
        """Find the file that was stored under an idempotency key."""
        row = await self.db.fetchrow(
            f"select {_COLUMNS} from files where account_id = $1 and idempotency_key = $2",
            account_id, idempotency_key,
        )  # fmt: skip
        return _file(row) if row else None

    async def page(
        self, account_id: str, *, purpose: str | None, after: str | None, ascending: bool, limit: int
    ) -> list[File]:
        """Give files of an account by their ids, from behind `after`."""
        beyond, order = (">", "asc") if ascending else ("<", "desc")
        rows = await self.db.fetch(
            f"select {_COLUMNS} from files where account_id = $1 and {_PRESENT}"
            f" and ($2::text is null or purpose = $2) and ($3::text is null or id {beyond} $3)"
            f" order by id {order} limit $4",
            account_id, purpose, after, limit,
        )  # fmt: skip
        return [_file(row) for row in rows]

    async def remove(self, account_id: str, file_id: str) -> File | None:
        """Remove a file of an account; None where there is none."""
        row = await self.db.fetchrow(
            f"delete from files where account_id = $1 and id = $2 returning {_COLUMNS}", account_id, file_id
        )
        return _file(row) if row else None

    async def expired(self, limit: int) -> list[File]:
        """Give files whose time is over."""
        rows = await self.db.fetch(
            f"select {_COLUMNS} from files where expires_at <= now() order by expires_at limit $1", limit
        )
        return [_file(row) for row in rows]

    async def used_bytes(self, account_id: str) -> int:
        """Give what the files of an account take."""
        return await self.db.fetchval("select bytes from usage where account_id = $1", account_id) or 0

    async def take_room(self, account_id: str, size: int, most: int) -> bool:
        """Count the bytes of a new file; False where the account would have more than `most`."""
        taken = await self.db.fetchval(
            "insert into usage as kept (account_id, bytes)"
            " select $1::text, $2::bigint where $2::bigint <= $3::bigint"
            " on conflict (account_id) do update set bytes = kept.bytes + $2"
            " where kept.bytes + $2 <= $3 returning true",
            account_id, size, most,
        )  # fmt: skip
        return taken is not None

    async def give_room(self, account_id: str, size: int) -> None:
        """Count the bytes of a removed file."""
        await self.db.execute("update usage set bytes = bytes - $2 where account_id = $1", account_id, size)

    async def disown(self, key: str, keep: timedelta) -> None:
        """Have an object removed after some time, unless a file comes to own it."""
        await self.db.execute(
            "insert into unowned_objects (key, due_at) values ($1, now() + $2::interval)"
            " on conflict (key) do update set due_at = excluded.due_at",
            key, keep,
        )  # fmt: skip

    async def own(self, key: str) -> bool:
        """Give an object to a file; False where it was given up, or is the removal's already."""
        owned = await self.db.fetchval(
            "delete from unowned_objects where key = $1 and due_at > now() returning true", key
        )
        return owned is not None

    async def lock_unowned(self) -> str | None:
        """Lock an object that is due to be removed, so that nobody else removes or owns it meanwhile."""
        key: str | None = await self.db.fetchval(
            "select key from unowned_objects where due_at <= now()"
            " order by due_at limit 1 for update skip locked"
        )
        return key

    async def forget_unowned(self, key: str) -> None:
        """Forget an object that is gone."""
        await self.db.execute("delete from unowned_objects where key = $1", key)


def _file(row: asyncpg.Record) -> File:
    return File(**row)
