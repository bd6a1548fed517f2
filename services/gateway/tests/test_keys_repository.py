"""API keys in a real database."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import asyncpg
import pytest

from dozen_chassis.postgres import Database
from dozen_gateway.domain.key_requests import Answered, rotate_request
from dozen_gateway.domain.keys import ANY, NO_LABELS, ApiKey, Budget, BudgetPeriod, hash_secret, revoked
from dozen_gateway.domain.limits import RateLimits
from dozen_gateway.repository.keys import KeysRepository, read_keys
from dozen_gateway.repository.read_models import ReadModelsRepository

pytestmark = pytest.mark.integration

NOW = 1_700_000_000.123456
PLAIN = ApiKey("key_1", "acme", "laptop", hash_secret("secret"), NOW)
FULL = ApiKey(
    id="key_2",
    account="acme",
    name="batch",
    secret_sha256=hash_secret("second"),
    created_at=NOW,
    expires_at=NOW + 0.000_001,
    labels={"team": "search", "quote": "\"'\\ü\u2028"},
    endpoints=frozenset({"/v1/files", "/v1/jobs"}),
    models=frozenset({"acme/smol", "b"}),
    limits=RateLimits(tokens_per_minute=10**9),
    budget=Budget(10**18, BudgetPeriod.TOTAL),
    previous_sha256=hash_secret("first"),
    previous_until=NOW + 3600,
    version=7,
)


@pytest.fixture
def repository(database: Database) -> KeysRepository:
    return KeysRepository(database)


class Told:
    """What replicas are told of keys."""

    def __init__(self, database: Database) -> None:
        self._changes = ReadModelsRepository(database).changes()

    async def keys(self) -> Mapping[str, ApiKey]:
        async with asyncio.timeout(20):
            return (await anext(self._changes)).keys


@pytest.fixture
async def told(database: Database) -> Told:
    """What replicas are told from now on."""
    told = Told(database)
    assert await told.keys() == {}
    return told


@pytest.mark.parametrize(
    "key", [PLAIN, FULL, replace(FULL, revoked_at=NOW + 5)], ids=["plain", "full", "revoked"]
)
async def test_a_key_is_read_as_it_was_kept(repository: KeysRepository, key: ApiKey) -> None:
    await repository.add_key(key)
    assert await repository.find_key("acme", key.id) == key
    assert await repository.find_key("other", key.id) is None


@pytest.mark.parametrize(("before", "after"), [(PLAIN, FULL), (FULL, PLAIN)])
async def test_a_key_becomes_what_it_is_saved_as(
    repository: KeysRepository, before: ApiKey, after: ApiKey
) -> None:
    await repository.add_key(before)
    await repository.add_key(replace(before, id="key_3"))
    changed = replace(after, id=before.id)
    await repository.save_key(changed)
    assert await repository.find_key("acme", before.id) == changed
    assert await repository.find_key("acme", "key_3") == replace(before, id="key_3")


async def test_every_change_of_a_key_is_told(repository: KeysRepository, told: Told) -> None:
    await repository.add_key(PLAIN)
    assert await told.keys() == {PLAIN.id: PLAIN}
    changed = replace(FULL, id=PLAIN.id)
    await repository.save_key(changed)
    assert await told.keys() == {PLAIN.id: changed}
    await repository.save_key(revoked(changed, NOW + 5))
    assert await told.keys() == {PLAIN.id: revoked(changed, NOW + 5)}


async def test_what_is_rolled_back_is_not_told(repository: KeysRepository, told: Told) -> None:
    async def fail() -> None:
        async with repository.transaction() as tx:
            await tx.add_key(PLAIN)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await repository.add_key(FULL)
    assert await told.keys() == {FULL.id: FULL}


async def test_memory_gets_all_keys_that_may_be_used_or_those_that_it_asks_for(
    repository: KeysRepository, database: Database
) -> None:
    gone = replace(FULL, id="key_3", revoked_at=NOW + 5)
    for key in (PLAIN, FULL, gone):
        await repository.add_key(key)
    assert await read_keys(database.pool, None) == {PLAIN.id: PLAIN, FULL.id: FULL}
    assert await read_keys(database.pool, [PLAIN.id, gone.id, "key_0"]) == {PLAIN.id: PLAIN, gone.id: gone}


async def test_keys_share_in_memory_what_they_have_in_common(
    repository: KeysRepository, database: Database
) -> None:
    for key in (PLAIN, FULL):
        await repository.add_key(key)
        await repository.add_key(replace(key, id=f"{key.id}0"))
    keys = await read_keys(database.pool, None)
    plain, full, other = keys[PLAIN.id], keys[FULL.id], keys[f"{FULL.id}0"]
    assert plain.account is full.account
    assert plain.endpoints is plain.models is ANY
    assert plain.labels is NO_LABELS
    assert full.endpoints is other.endpoints
    assert full.limits is other.limits
    assert full.budget is other.budget


async def someone_waits(repository: KeysRepository) -> None:
    async with asyncio.timeout(20):
        while not await repository.db.fetchval("select count(*) from pg_locks where not granted"):
            pass


async def test_a_key_that_is_announced_does_not_change_meanwhile(repository: KeysRepository) -> None:
    await repository.add_key(PLAIN)
    changed = replace(FULL, id=PLAIN.id)
    async with repository.transaction() as tx:
        assert await tx.page_keys("", 10) == [PLAIN]
        saving = asyncio.create_task(repository.save_key(changed))
        await someone_waits(repository)
        assert not saving.done()
    await saving
    assert await repository.page_keys("", 10) == [changed]
    assert await repository.page_keys(PLAIN.id, 10) == []


async def test_transactions_that_change_keys_of_an_account_follow_each_other(
    repository: KeysRepository,
) -> None:
    async def lock(account: str) -> None:
        async with repository.transaction() as tx:
            await tx.lock_account(account)

    async with repository.transaction() as tx:
        await tx.lock_account("acme")
        await lock("other")
        second = asyncio.create_task(lock("acme"))
        await someone_waits(repository)
        assert not second.done()
    await second


async def test_an_answer_is_kept_until_its_idempotency_key_is_used_anew(repository: KeysRepository) -> None:
    request = rotate_request("acme", "once", FULL.id, 60)
    answered = Answered(request.fingerprint, FULL, NOW)
    await repository.add_key(FULL)
    await repository.save_answer(request, answered)
    await repository.save_key(replace(PLAIN, id=FULL.id))
    assert await repository.find_answer(request, NOW - 1) == answered
    assert await repository.find_answer(request, NOW) is None
    assert await repository.find_answer(replace(request, account="other"), NOW - 1) is None
    assert await repository.find_answer(replace(request, idempotency_key="twice"), NOW - 1) is None
    other = rotate_request("acme", "once", FULL.id, 0)
    await repository.save_answer(other, Answered(other.fingerprint, replace(PLAIN, id=FULL.id), NOW + 1))
    found = await repository.find_answer(request, NOW - 1)
    assert found == Answered(other.fingerprint, replace(PLAIN, id=FULL.id), NOW + 1)


async def test_answers_are_forgotten_a_few_at_a_time(repository: KeysRepository) -> None:
    await repository.add_key(PLAIN)
    for number in range(3):
        request = rotate_request("acme", f"once{number}", PLAIN.id, number)
        await repository.save_answer(request, Answered(request.fingerprint, PLAIN, NOW + number))
    assert await repository.forget_answers(NOW + 2, 1) == 1
    assert await repository.forget_answers(NOW + 2, 1) == 1
    assert await repository.forget_answers(NOW + 2, 1) == 0
    assert await repository.find_answer(rotate_request("acme", "once2", PLAIN.id, 2), 0) is not None


async def test_half_a_budget_or_half_a_grace_is_refused(
    repository: KeysRepository, database: Database
) -> None:
    await repository.add_key(FULL)
    for change in ("budget_period = null", "previous_until = null"):
        with pytest.raises(asyncpg.CheckViolationError):
            await database.pool.execute(f"update api_keys set {change}")
