"""What only the real database can do: order, conditions and history."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import asyncpg
import pytest

from dozen_chassis.postgres import Database
from dozen_models.domain.catalogue import Deployment, ModelCard, Offer, Upstream
from dozen_models.domain.health import Health
from dozen_models.repository import ModelsRepository
from dozen_models.service.catalogue import CatalogueService
from dozen_testing.conditions import eventually

pytestmark = pytest.mark.integration

CARD = ModelCard(
    "m", "acme", ("chat",), 0, (Deployment("d", "chat", "http://chat:8080", "http://a/health", 1, 100),)
)


@pytest.fixture
async def repository(database: Database) -> ModelsRepository:
    """A catalogue with one model."""
    repository = ModelsRepository(database)
    await CatalogueService(repository).apply([Offer(CARD, {"input_tokens": 1})])
    return repository


async def test_of_replicas_that_start_at_once_one_changes_the_catalogue(repository: ModelsRepository) -> None:
    offers = [Offer(CARD, {"input_tokens": 2})]
    waiting = "select exists (select from pg_locks where relation = 'models'::regclass and not granted)"
    async with repository.transaction() as first:
        await CatalogueService(first).apply(offers)
        second = asyncio.create_task(CatalogueService(repository).apply(offers))
        await eventually(lambda: repository.db.fetchval(waiting))
    await second
    assert await repository.db.fetchval("select count(*) from prices") == 2


async def test_of_replicas_that_see_a_change_one_writes_it(repository: ModelsRepository) -> None:
    changes = await asyncio.gather(
        *(repository.change_health("d", Health.UNHEALTHY, "connection refused") for _ in range(4))
    )
    assert sum(change is not None for change in changes) == 1
    assert await repository.db.fetchval("select count(*) from health_changes") == 1


async def test_times_grow_though_the_clock_goes_back(repository: ModelsRepository) -> None:
    await repository.db.execute("update prices set effective_from = now() + interval '1 hour'")
    first = (await repository.models())[0].price
    second = await repository.add_price("price_2", "m", {"input_tokens": 0})
    assert second.effective_from > first.effective_from
    assert (await repository.models())[0].price == second

    await repository.change_health("d", Health.HEALTHY, "answered 200")
    await repository.db.execute("update deployments set observed_at = now() + interval '1 hour'")
    before = (await repository.models())[0].states["d"]
    after = await repository.change_health("d", Health.UNHEALTHY, "connection refused")
    assert after is not None
    assert after.observed_at is not None
    assert before.observed_at is not None
    assert after.observed_at > before.observed_at
    assert (await repository.models())[0].states["d"] == after


async def test_a_retired_deployment_has_no_health(repository: ModelsRepository) -> None:
    await repository.retire("m")
    assert await repository.change_health("d", Health.HEALTHY, "answered 200") is None


async def test_history_is_kept_and_forgotten(repository: ModelsRepository) -> None:
    for health in (Health.HEALTHY, Health.UNHEALTHY, Health.HEALTHY):
        await repository.change_health("d", health, health.value)
    history = "select health from health_changes order by observed_at"
    assert [row["health"] for row in await repository.db.fetch(history)] == [
        "healthy",
        "unhealthy",
        "healthy",
    ]
    assert await repository.forget_health_changes(timedelta(days=1), 10) == 0
    assert await repository.forget_health_changes(timedelta(0), 2) == 2
    assert [row["health"] for row in await repository.db.fetch(history)] == ["healthy"]


async def test_a_seed_that_cannot_be_written_whole_is_not_written(repository: ModelsRepository) -> None:
    heavy = replace(CARD.deployments[0], id="heavy", weight=2**40)
    offers = [Offer(replace(CARD, id="other", deployments=(heavy,)), {"input_tokens": 1})]
    with pytest.raises(asyncpg.DataError):
        await CatalogueService(repository).apply(offers)
    assert [model.card for model in await repository.models()] == [CARD]
    assert await repository.db.fetchval("select count(*) from outbox") == 2


async def test_what_is_held_down_becomes_nothing_but_unhealthy_until_it_is_released(
    repository: ModelsRepository,
) -> None:
    await repository.change_health("d", Health.HEALTHY, "answered 200")
    await repository.hold_down("d", 3600)
    assert await repository.change_health("d", Health.UNHEALTHY, "7 of 9 requests failed") is not None
    for health in (Health.HEALTHY, Health.UNKNOWN):
        assert await repository.change_health("d", health, "") is None
    await repository.release("d")
    assert await repository.change_health("d", Health.HEALTHY, "answered 200") is not None


async def test_what_is_held_down_is_free_when_the_time_is_over(repository: ModelsRepository) -> None:
    await repository.change_health("d", Health.UNHEALTHY, "7 of 9 requests failed")
    await repository.hold_down("d", -1)
    assert await repository.change_health("d", Health.HEALTHY, "answered 200") is not None


async def test_one_that_comes_back_is_announced_as_later_than_it_was(repository: ModelsRepository) -> None:
    before = await repository.change_health("d", Health.UNHEALTHY, "7 of 9 requests failed")
    await repository.hold_down("d", 3600)
    await repository.retire("m")
    await repository.register(CARD)
    after = (await repository.models())[0].states["d"]
    assert (after.health, after.reason) == (Health.UNKNOWN, "")
    assert after.observed_at is not None
    assert before is not None
    assert before.observed_at is not None
    assert after.observed_at > before.observed_at
    assert await repository.change_health("d", Health.HEALTHY, "") is not None, "it is not held down any more"


async def test_all_of_a_card_is_kept(repository: ModelsRepository) -> None:
    upstream = Upstream("gemini", "https://api.example.com", "gemini-x", "provider-key", 64)
    deployment = Deployment("e", "chat", "http://chat:8080", "", 1, 100, upstream)
    card = ModelCard("n", "acme", ("chat",), 0, (deployment,), ("m",), 3600, True)
    for wanted in (replace(card, fallbacks=(), content_filter=False), card):
        await CatalogueService(repository).apply([Offer(CARD, {}), Offer(wanted, {"input_tokens": 1})])
        assert [model.card for model in await repository.models()] == [CARD, wanted]
