"""Keys that another replica has made or rotated are looked up, and those who guess keep no database busy."""

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from dozen_chassis.postgres import Database
from dozen_gateway.domain.keys import ApiKey, KeyParts, hash_secret, with_secret, write_key
from dozen_gateway.domain.state import Snapshot, State
from dozen_gateway.repository.keys import KeysRepository
from dozen_gateway.service.key_lookups import MOST_A_SECOND, KeyLookup

KEY = ApiKey("key_1", "acme", "laptop", hash_secret("5ecret"), 1_000_000.0)
TEXT = write_key(KeyParts("acme", "key_1", "5ecret"))


@dataclass
class FakeStore:
    """Keys by account and id; without an answer it hangs."""

    keys: dict[tuple[str, str], ApiKey] = field(default_factory=dict)
    hangs: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def look_up_key(self, account: str, key_id: str) -> ApiKey | None:
        self.asked.append((account, key_id))
        if self.hangs:
            await asyncio.Event().wait()
        return self.keys.get((account, key_id))


class Stage:
    def __init__(self) -> None:
        self.store = FakeStore()
        self.state = State()
        self.now = 100.0
        self.lookup = KeyLookup(self.store, self.state, monotonic=lambda: self.now)


async def test_a_new_key_and_a_new_secret_are_found() -> None:
    stage = Stage()
    stage.store.keys["acme", "key_1"] = KEY
    assert await stage.lookup.look_up(TEXT)
    assert stage.state.keys == {"key_1": KEY}
    stage.now += 1
    assert not await stage.lookup.look_up(TEXT)
    rotated = with_secret(KEY, hash_secret("new"), 1_000_001.0, 60)
    stage.store.keys["acme", "key_1"] = rotated
    stage.now += 1
    assert await stage.lookup.look_up(TEXT)
    assert stage.state.keys == {"key_1": rotated}


async def test_an_older_version_is_no_news() -> None:
    stage = Stage()
    stage.state.learn(Snapshot(keys={"key_1": replace(KEY, version=3)}))
    stage.store.keys["acme", "key_1"] = KEY
    assert not await stage.lookup.look_up(TEXT)
    assert stage.state.keys["key_1"].version == 3


async def test_one_key_is_looked_up_once_a_second_and_so_many_keys_at_most() -> None:
    stage = Stage()
    for _ in range(3):
        assert not await stage.lookup.look_up(TEXT)
    assert len(stage.store.asked) == 1
    for number in range(100):
        await stage.lookup.look_up(write_key(KeyParts("acme", f"key_a{number}", "x")))
    assert len(stage.store.asked) == MOST_A_SECOND
    stage.now += 1
    await stage.lookup.look_up(TEXT)
    assert len(stage.store.asked) == MOST_A_SECOND + 1


async def test_what_is_no_key_is_not_looked_up() -> None:
    stage = Stage()
    assert not await stage.lookup.look_up("sk-something")
    assert not stage.store.asked


async def test_a_database_that_does_not_answer_is_not_waited_for() -> None:
    stage = Stage()
    stage.store.hangs = True
    async with asyncio.timeout(5):
        assert not await stage.lookup.look_up(TEXT)


@pytest.mark.integration
async def test_the_database_gives_keys_and_nothing_once_it_is_away(database: Database) -> None:
    repository = KeysRepository(database)
    async with repository.transaction() as tx:
        await tx.add_key(KEY)
    assert await repository.look_up_key("acme", "key_1") == KEY
    assert await repository.look_up_key("other", "key_1") is None
    await database.pool.close()
    assert await repository.look_up_key("acme", "key_1") is None
