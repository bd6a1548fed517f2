"""The SQL of the gateway, on a real database."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from dozen_chassis.postgres import Database
from dozen_gateway.domain.holds import Settlement
from dozen_gateway.domain.state import Account, Deployment, Model, Price, Snapshot
from dozen_gateway.repository.notices import notices, read_notice
from dozen_gateway.repository.read_models import ReadModelsRepository

pytestmark = pytest.mark.integration

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
LATER = NOW + timedelta(seconds=1)
MODEL = Model("acme/smol", frozenset({"chat"}), 2048, (Deployment("smol-1", "chat", "http://chat", 1, 100),))


@pytest.fixture
def repository(database: Database) -> ReadModelsRepository:
    return ReadModelsRepository(database)


@pytest.fixture
async def changes(repository: ReadModelsRepository) -> AsyncIterator[AsyncIterator[Snapshot]]:
    """What the repository tells of, after the first whole snapshot."""
    changes = repository.changes()
    async with asyncio.timeout(20):
        assert await anext(changes) == Snapshot(whole=True, settled=None)
        yield changes


async def test_the_newest_balance_stays(repository: ReadModelsRepository) -> None:
    await repository.save_accounts({"acme": Account(5, version=2), "other": Account(1, version=1)})
    await repository.save_accounts({"acme": Account(9, version=1), "other": Account(-3, version=2)})
    assert (await repository.read()).accounts == {"acme": Account(5, 2), "other": Account(-3, 2)}


async def test_the_latest_registration_of_a_model_stays(repository: ReadModelsRepository) -> None:
    await repository.save_model(MODEL, LATER)
    await repository.save_model(replace(MODEL, context_length=1), NOW)
    assert (await repository.read()).models == {MODEL.id: MODEL}
    renewed = replace(
        MODEL, capabilities=frozenset({"chat", "completion"}), deployments=(), fallbacks=("b", "a"),
        cache_seconds=60, content_filter=True,
    )  # fmt: skip
    await repository.save_model(renewed, LATER + timedelta(seconds=1))
    assert (await repository.read()).models == {MODEL.id: renewed}


async def test_prices_are_kept_in_the_order_in_which_they_begin(repository: ReadModelsRepository) -> None:
    second = Price("price-2", {"input_tokens": 7}, LATER.timestamp())
    first = Price("price-1", {"input_tokens": 5, "output_tokens": 9}, NOW.timestamp())
    await repository.save_price(MODEL.id, second)
    await repository.save_price(MODEL.id, first)
    await repository.save_price(MODEL.id, replace(first, nano_credits={}))
    assert (await repository.read()).prices == {MODEL.id: (first, second)}


async def test_the_latest_observation_of_health_stays(repository: ReadModelsRepository) -> None:
    await repository.save_health("smol-1", usable=False, observed_at=LATER)
    await repository.save_health("smol-1", usable=True, observed_at=NOW)
    assert (await repository.read()).usable == {"smol-1": False}


async def test_every_change_is_told(
    repository: ReadModelsRepository, changes: AsyncIterator[Snapshot]
) -> None:
    await repository.save_accounts({"acme": Account(5, version=2)})
    assert await anext(changes) == Snapshot(accounts={"acme": Account(5, 2)})
    await repository.save_model(MODEL, NOW)
    assert await anext(changes) == Snapshot(models={MODEL.id: MODEL})
    price = Price("price-1", {"input_tokens": 5}, NOW.timestamp())
    await repository.save_price(MODEL.id, price)
    assert await anext(changes) == Snapshot(prices={MODEL.id: (price,)})
    await repository.save_health("smol-1", usable=False, observed_at=NOW)
    assert await anext(changes) == Snapshot(usable={"smol-1": False})


async def test_what_changes_nothing_is_not_told(
    repository: ReadModelsRepository, changes: AsyncIterator[Snapshot]
) -> None:
    await repository.save_accounts({"acme": Account(5, version=2)})
    await repository.save_accounts({"acme": Account(5, version=2)})
    await repository.save_accounts({"other": Account(1, version=1)})
    assert [await anext(changes), await anext(changes)] == [
        Snapshot(accounts={"acme": Account(5, 2)}),
        Snapshot(accounts={"other": Account(1, 1)}),
    ]


async def test_many_changes_are_told_in_several_parts(
    repository: ReadModelsRepository, changes: AsyncIterator[Snapshot]
) -> None:
    accounts = {f"{number:032}": Account(number, 1) for number in range(250)}
    await repository.save_accounts(accounts)
    parts = [(await anext(changes)).accounts for _ in range(2)]
    assert [len(part) for part in parts] == [128, 122]
    assert {id: account for part in parts for id, account in part.items()} == accounts


async def test_what_became_of_requests_is_told_whole_and_kept(
    repository: ReadModelsRepository, changes: AsyncIterator[Snapshot]
) -> None:
    settled = {"req_1": Settlement("lease_1", 15, 9), "req_2": Settlement("lease_2", 0, 0)}
    balances = {"acme": Account(5, version=2)}
    await repository.save_accounts(balances, settled)
    await repository.save_accounts(balances, settled)  # which is no news
    later = {"req_3": Settlement("lease_1", 1, 1)}
    await repository.save_accounts({}, later)
    assert await anext(changes) == Snapshot(accounts=balances, settled=settled)
    assert await anext(changes) == Snapshot(settled=later)
    assert await repository.settlements(["req_1", "req_3", "req_9"]) == {
        "req_1": settled["req_1"], **later
    }  # fmt: skip


def test_a_notification_is_never_too_long() -> None:
    changes = [(f"{number:0128}", Settlement(f"lease_{number:026}", 10**15, 10**9)) for number in range(300)]
    told = list(notices(changes))
    assert max(len(one.encode()) for one in told) < 8000
    assert len(told) < 20
    read = [read_notice(msgspec.json.decode(one)).settled for one in told]
    assert {id: one for part in read for id, one in (part or {}).items()} == dict(changes)


async def test_what_is_rolled_back_is_not_told(
    repository: ReadModelsRepository, changes: AsyncIterator[Snapshot]
) -> None:
    async def fail() -> None:
        async with repository.transaction() as tx:
            await tx.save_accounts({"acme": Account(4, 1)})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    await repository.save_accounts({"acme": Account(5, 1)})
    assert await anext(changes) == Snapshot(accounts={"acme": Account(5, 1)})


async def test_after_a_lost_connection_everything_is_read_anew(
    repository: ReadModelsRepository, database: Database, changes: AsyncIterator[Snapshot]
) -> None:
    await database.pool.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and pid <> pg_backend_pid()"
    )
    await database.pool.execute("insert into accounts values ('acme', 5, 1)")  # which nobody is told of
    assert await anext(changes) == Snapshot(whole=True, settled=None, accounts={"acme": Account(5, 1)})


async def test_a_database_that_is_not_ready_is_waited_for(
    repository: ReadModelsRepository, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await database.pool.execute("alter table accounts rename to later")
    changes = repository.changes()
    first = asyncio.ensure_future(anext(changes))
    async with asyncio.timeout(20):
        while "has to wait" not in caplog.text:
            await database.ping()
        await database.pool.execute("alter table later rename to accounts")
        assert await first == Snapshot(whole=True, settled=None)
