"""What the tests of the storage service share: fakes of what it stands on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Self

import pytest
from google.protobuf.message import Message

from dozen_storage.domain import File


@dataclass
class FakeFiles:
    """Files in memory; a transaction that fails leaves them as they were."""

    kept: dict[str, File] = field(default_factory=dict)
    repeats: dict[tuple[str, str], str] = field(default_factory=dict)
    used: dict[str, int] = field(default_factory=dict)
    unowned: dict[str, datetime] = field(default_factory=dict)
    events: list[Message] = field(default_factory=list)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Self]:
        before = deepcopy(self.__dict__)
        try:
            yield self
        except BaseException:
            self.__dict__.update(before)
            raise

    async def emit(self, event: Message) -> None:
        self.events.append(event)

    async def add(self, file: File, idempotency_key: str | None) -> bool:
        if idempotency_key is not None:
            if await self.find_repeated(file.account_id, idempotency_key):
                return False
            self.repeats[file.account_id, idempotency_key] = file.id
        self.kept[file.id] = file
        return True

    async def find(self, account_id: str, file_id: str) -> File | None:
        file = self.kept.get(file_id)
        return file if file and file.account_id == account_id and not _is_expired(file) else None

    async def find_repeated(self, account_id: str, idempotency_key: str) -> File | None:
        return self.kept.get(self.repeats.get((account_id, idempotency_key), ""))

    async def page(
        self, account_id: str, *, purpose: str | None, after: str | None, ascending: bool, limit: int
    ) -> list[File]:
        ids = sorted(self.kept, reverse=not ascending)
        found = [self.kept[i] for i in ids if after is None or (i > after if ascending else i < after)]
        return [
            file
            for file in found
            if file.account_id == account_id and purpose in (None, file.purpose) and not _is_expired(file)
        ][:limit]

    async def remove(self, account_id: str, file_id: str) -> File | None:
        file = self.kept.get(file_id)
        return self.kept.pop(file_id) if file and file.account_id == account_id else None

    async def expired(self, limit: int) -> list[File]:
        return [file for file in self.kept.values() if _is_expired(file)][:limit]

    async def used_bytes(self, account_id: str) -> int:
        return self.used.get(account_id, 0)

    async def take_room(self, account_id: str, size: int, most: int) -> bool:
        if self.used.get(account_id, 0) + size > most:
            return False
        self.used[account_id] = self.used.get(account_id, 0) + size
        return True

    async def give_room(self, account_id: str, size: int) -> None:
        self.used[account_id] -= size

    async def disown(self, key: str, keep: timedelta) -> None:
        self.unowned[key] = datetime.now(UTC) + keep

    async def own(self, key: str) -> bool:
        return self.unowned.get(key, datetime.min.replace(tzinfo=UTC)) > datetime.now(UTC) and bool(
            self.unowned.pop(key)
        )

    async def lock_unowned(self) -> str | None:
        due = [key for key, due_at in self.unowned.items() if due_at <= datetime.now(UTC)]
        return min(due, key=self.unowned.__getitem__, default=None)

    async def forget_unowned(self, key: str) -> None:
        del self.unowned[key]


def _is_expired(file: File) -> bool:
    return file.expires_at is not None and file.expires_at <= datetime.now(UTC)


@pytest.fixture
def fake_files() -> FakeFiles:
    """Files in memory."""
    return FakeFiles()


@pytest.fixture
def a_file() -> File:
    """A file of the account `acme`."""
    return File(
        id="file-1",
        account_id="acme",
        filename="cats.jsonl",
        purpose="batch",
        content_type="application/octet-stream",
        bytes=3,
        sha256="ab" * 32,
        created_at=datetime(2025, 1, 1, tzinfo=UTC),
    )
