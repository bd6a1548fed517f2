"""The administration of API keys: one suite on a store in memory and on PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

import pytest
from google.protobuf.message import Message

from dozen_chassis.errors import InvalidRequest
from dozen_chassis.postgres import Database
from dozen_gateway.domain.keys import ApiKey, hash_secret, is_secret_of, read_key
from dozen_gateway.domain.state import State
from dozen_gateway.errors import InvalidAccountId, KeyNotFound, TooManyKeys
from dozen_gateway.repository import GatewayRepository
from dozen_gateway.service.keys import MOST_KEYS, KeyService, KeyStore


@dataclass
class FakeKeyStore:
    """Keys in memory, in the order in which they were made."""

    keys: dict[str, ApiKey] = field(default_factory=dict)
    events: list[Message] = field(default_factory=list)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[KeyStore]:
        yield self

    async def emit(self, event: Message) -> None:
        self.events.append(event)

    async def add_key(self, key: ApiKey) -> None:
        self.keys[key.id] = key

    async def count_keys(self, account: str) -> int:
        return len(self._of(account, revoked=False))

    async def find_key(self, account: str, key_id: str) -> ApiKey | None:
        return next((key for key in self._of(account, revoked=True) if key.id == key_id), None)

    async def list_keys(
        self, account: str, *, limit: int, after: str | None, newest_first: bool, revoked: bool
    ) -> list[ApiKey]:
        found = sorted(
            self._of(account, revoked=True), key=lambda key: (key.created_at, key.id), reverse=newest_first
        )
        if after is not None:
            places = [place for place, key in enumerate(found, 1) if key.id == after]
            found = found[places[0] :] if places else []
        return [key for key in found if revoked or key.revoked_at is None][:limit]

    async def revoke_key(self, account: str, key_id: str, revoked_at: datetime) -> bool:
        key = await self.find_key(account, key_id)
        if key is None or key.revoked_at is not None:
            return False
        self.keys[key_id] = replace(key, revoked_at=revoked_at)
        return True

    def _of(self, account: str, *, revoked: bool) -> list[ApiKey]:
        return [
            key for key in self.keys.values() if key.account == account and (revoked or not key.revoked_at)
        ]


@dataclass
class Stage:
    """The key service on a store."""

    store: KeyStore
    database: Database | None = None
    state: State = field(default_factory=State)

    @property
    def keys(self) -> KeyService:
        return KeyService(self.store, self.state)

    async def published(self) -> list[str]:
        if self.database is not None:
            rows = await self.database.pool.fetch("select subject from outbox order by id")
            return [row["subject"] for row in rows]
        assert isinstance(self.store, FakeKeyStore)
        return [event.DESCRIPTOR.full_name for event in self.store.events]


@pytest.fixture(params=["fake", pytest.param("postgres", marks=pytest.mark.integration)])
def stage(request: pytest.FixtureRequest) -> Stage:
    if request.param == "fake":
        return Stage(FakeKeyStore())
    database: Database = request.getfixturevalue("database")
    return Stage(GatewayRepository(database), database)


async def test_a_key_is_shown_once_and_only_the_hash_of_its_secret_is_kept(stage: Stage) -> None:
    key, text = await stage.keys.create("acme", "laptop")
    parts = read_key(text)
    assert parts is not None
    assert (parts.account, parts.id) == ("acme", key.id)
    kept = await stage.store.find_key("acme", key.id)
    assert kept == key
    assert kept is not None
    assert is_secret_of(kept, parts)
    assert parts.secret not in repr(kept)
    assert await stage.published() == ["dozen.gateway.v1.ApiKeyCreated"]


async def test_a_key_can_be_used_before_the_database_has_told_of_it(stage: Stage) -> None:
    key, _ = await stage.keys.create("acme", "laptop")
    assert stage.state.keys[key.id] == key


@pytest.mark.parametrize("account", ["", "ACME", "a-b", "a" * 33, "a\n"])
async def test_an_account_id_that_is_none_is_refused(stage: Stage, account: str) -> None:
    with pytest.raises(InvalidAccountId):
        await stage.keys.create(account, "laptop")


async def test_a_long_name_is_refused(stage: Stage) -> None:
    with pytest.raises(InvalidRequest, match="100 characters"):
        await stage.keys.create("acme", "n" * 101)


async def test_revoking_twice_changes_nothing(stage: Stage) -> None:
    key, _ = await stage.keys.create("acme", "laptop")
    first = await stage.keys.revoke("acme", key.id)
    assert first.revoked_at is not None
    assert await stage.keys.revoke("acme", key.id) == first
    assert await stage.published() == ["dozen.gateway.v1.ApiKeyCreated", "dozen.gateway.v1.ApiKeyRevoked"]


async def test_a_key_of_another_account_is_not_found(stage: Stage) -> None:
    key, _ = await stage.keys.create("acme", "laptop")
    for account, key_id in (("other", key.id), ("acme", "key_0")):
        with pytest.raises(KeyNotFound):
            await stage.keys.revoke(account, key_id)
    kept = await stage.store.find_key("acme", key.id)
    assert kept is not None
    assert kept.revoked_at is None


@pytest.mark.parametrize("newest_first", [True, False])
async def test_pages_follow_each_other_without_revoked_keys(stage: Stage, newest_first: bool) -> None:
    made = [(await stage.keys.create("acme", str(number)))[0].id for number in range(6)]
    await stage.keys.create("other", "not mine")
    await stage.keys.revoke("acme", made.pop(2))
    expected = made[::-1] if newest_first else made
    seen: list[str] = []
    has_more, after = True, None
    while has_more:
        page, has_more = await stage.keys.list("acme", limit=2, after=after, newest_first=newest_first)
        seen += [key.id for key in page]
        after = seen[-1]
    assert seen == expected


async def test_a_page_goes_on_behind_a_key_that_was_revoked_meanwhile(stage: Stage) -> None:
    older, newer = [(await stage.keys.create("acme", str(number)))[0].id for number in range(2)]
    await stage.keys.revoke("acme", newer)
    page, has_more = await stage.keys.list("acme", limit=2, after=newer)
    assert ([key.id for key in page], has_more) == ([older], False)


async def test_all_keys_are_listed_with_the_revoked_ones(stage: Stage) -> None:
    older, newer = [(await stage.keys.create("acme", str(number)))[0].id for number in range(2)]
    await stage.keys.revoke("acme", older)
    listed = await stage.keys.list_all("acme")
    assert [(key.id, key.revoked_at is None) for key in listed] == [(newer, True), (older, False)]


async def test_an_account_has_so_many_keys_at_most() -> None:
    store = FakeKeyStore()
    keys = KeyService(store, State())
    key, _ = await keys.create("acme", "laptop")
    for number in range(MOST_KEYS - 1):
        store.keys[f"more{number}"] = replace(key, id=f"more{number}", secret_sha256=hash_secret("x"))
    with pytest.raises(TooManyKeys):
        await keys.create("acme", "one more")
    await keys.revoke("acme", key.id)
    await keys.create("acme", "one more")
