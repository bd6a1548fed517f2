"""Replicas of the gateway on one database, without NATS: what becomes of a key is known to all at once."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random

import pytest

from dozen_chassis.postgres import Database
from dozen_gateway.domain.decision import Admitted, Facts, decide
from dozen_gateway.domain.key_terms import KeyTerms
from dozen_gateway.domain.rejections import Rejection
from dozen_gateway.domain.state import State
from dozen_gateway.repository.keys import KeysRepository
from dozen_gateway.repository.read_models import ReadModelsRepository
from dozen_gateway.service.keys import KeyService
from dozen_testing.conditions import eventually
from dozen_testing.tasks import running

pytestmark = pytest.mark.integration

LAPTOP = KeyTerms("laptop")
BOUND_SECONDS = 1.0
"""Within which a change is known everywhere."""


@dataclass
class Replica:
    """A gateway, as far as keys are concerned."""

    database: Database
    state: State = field(default_factory=State)
    draw: Random = field(default_factory=lambda: Random(1))

    @property
    def keys(self) -> KeyService:
        return KeyService(KeysRepository(self.database), self.state, b"server key")

    async def follow(self) -> None:
        async for snapshot in ReadModelsRepository(self.database).changes():
            self.state.learn(snapshot)

    def verdict(self, text: str, path: str = "/v1/files", *, at: float | None = None) -> str | None:
        """Decide; give the code of a rejection."""
        facts = Facts("GET", path, api_key=text)
        now = time.time() if at is None else at
        decision = decide(facts, self.state, now, time.monotonic(), self.draw)
        assert isinstance(decision, Admitted | Rejection)
        return None if isinstance(decision, Admitted) else decision.code


@pytest.fixture
async def replicas(postgres_dsn: str) -> AsyncIterator[list[Replica]]:
    """Two replicas that follow one database."""
    async with AsyncExitStack() as stack:
        replicas = [Replica(await Database.open(postgres_dsn)) for _ in range(2)]
        for replica in replicas:
            stack.push_async_callback(replica.database.close)
            await stack.enter_async_context(running(replica.follow()))
        await until(lambda: all(replica.state.loaded for replica in replicas), 20)
        yield replicas


async def until(look: Callable[[], bool], seconds: float = BOUND_SECONDS) -> None:
    """Let the replicas work until something is so."""

    async def looked() -> bool:
        return look()

    await eventually(looked, seconds)


async def until_told(
    replica: Replica, text: str, code: str | None = None, seconds: float = BOUND_SECONDS
) -> None:
    """Wait until a replica admits a key, or rejects it by a code."""
    await until(lambda: replica.verdict(text) == code, seconds)


async def test_a_revoked_key_is_refused_by_every_replica_within_a_second(replicas: list[Replica]) -> None:
    one, other = replicas
    issued = await one.keys.create("acme", LAPTOP)
    await until_told(other, issued.text)
    await one.keys.revoke("acme", issued.key.id)
    assert one.verdict(issued.text) == "invalid_api_key"
    await until_told(other, issued.text, "invalid_api_key")


async def test_an_update_reaches_every_replica_within_a_second(replicas: list[Replica]) -> None:
    one, other = replicas
    issued = await one.keys.create("acme", LAPTOP)
    await until_told(other, issued.text)
    await one.keys.update("acme", issued.key.id, {"endpoints": frozenset({"/v1/jobs"})})
    for replica in replicas:
        await until_told(replica, issued.text, "insufficient_permissions")
        assert replica.verdict(issued.text, "/v1/jobs/job_1") is None
    assert one.state.keys == other.state.keys


async def test_an_expiry_reaches_every_replica_within_a_second(replicas: list[Replica]) -> None:
    one, other = replicas
    issued = await one.keys.create("acme", LAPTOP)
    end = int(time.time()) + 3600.0
    await other.keys.update("acme", issued.key.id, {"expires_at": end})
    await until(lambda: one.state.keys[issued.key.id].expires_at is not None)
    for replica in replicas:
        assert replica.verdict(issued.text, at=end - 1) is None
        assert replica.verdict(issued.text, at=end) == "invalid_api_key"


async def test_both_secrets_are_accepted_by_every_replica_until_the_grace_is_over(
    replicas: list[Replica],
) -> None:
    one, other = replicas
    old = await one.keys.create("acme", LAPTOP)
    await until_told(other, old.text)
    new = await one.keys.rotate("acme", old.key.id, grace=60)
    await until_told(other, new.text)
    end = new.key.previous_until
    assert end is not None
    for replica in replicas:
        for text, after in ((old.text, "invalid_api_key"), (new.text, None)):
            assert replica.verdict(text) is None
            assert replica.verdict(text, at=end - 0.001) is None
            assert replica.verdict(text, at=end) == after


async def test_a_rotation_without_grace_ends_the_old_secret_everywhere_within_a_second(
    replicas: list[Replica],
) -> None:
    one, other = replicas
    old = await one.keys.create("acme", LAPTOP)
    await until_told(other, old.text)
    new = await one.keys.rotate("acme", old.key.id, grace=0)
    assert one.verdict(old.text) == "invalid_api_key"
    assert one.verdict(new.text) is None
    await until_told(other, old.text, "invalid_api_key")
    assert other.verdict(new.text) is None


async def test_a_replica_that_was_cut_off_hears_of_a_revocation_when_it_is_back(
    replicas: list[Replica],
) -> None:
    one, other = replicas
    issued = await one.keys.create("acme", LAPTOP)
    await until_told(other, issued.text)
    await one.database.pool.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    await one.keys.revoke("acme", issued.key.id)

    for replica in replicas:
        await until_told(replica, issued.text, "invalid_api_key", 15)


async def test_no_call_with_a_valid_secret_fails_while_a_key_is_rotated(replicas: list[Replica]) -> None:
    one, other = replicas
    issued = await one.keys.create("acme", LAPTOP)
    await until_told(other, issued.text)
    # At the replica that rotates, who has the old secret and who has the new one; at the other, which hears
    # of it a moment later, who goes on with the old one until then.
    valid: dict[int, list[str]] = {0: [issued.text], 1: [issued.text]}
    counts, failures = [0, 0], list[str]()

    async def call(number: int) -> None:
        replica = replicas[number]
        for turn in itertools.count():
            text = valid[number][turn % len(valid[number])]
            code = replica.verdict(text)
            counts[number] += 1
            if code is not None:
                failures.append(f"replica {number}: {code}")
            await asyncio.sleep(0)

    async with AsyncExitStack() as callers:
        for number in (0, 1) * 8:
            await callers.enter_async_context(running(call(number)))
        for _ in range(30):
            old, issued = issued, await one.keys.rotate("acme", issued.key.id)
            valid[0] = [old.text, issued.text]
            await until_told(other, issued.text)
            valid[1] = [old.text, issued.text]
            await asyncio.gather(
                *[other.keys.update("acme", issued.key.id, {"name": str(n)}) for n in range(3)]
            )
            valid[0] = valid[1] = [issued.text]
    assert not failures, failures[:5]
    assert min(counts) > 1000
