"""The read model, written and read."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dozen_admin.domain.accounts import Account, Balance
from dozen_admin.domain.catalogue import Deployment, Health, Model, Price
from dozen_admin.domain.keys import ApiKey, Budget, KeyTerms, RateLimits
from dozen_admin.domain.tasks import Task
from dozen_admin.domain.usage import Charge, ModelUsage, Totals
from dozen_admin.repository.intake import IntakeRepository
from dozen_admin.repository.views import ViewsRepository
from dozen_chassis.postgres import Database

pytestmark = pytest.mark.integration


@pytest.fixture
def intake(database: Database) -> IntakeRepository:
    return IntakeRepository(database)


@pytest.fixture
def views(database: Database) -> ViewsRepository:
    return ViewsRepository(database)


async def test_a_balance_is_never_replaced_by_an_older_one(
    intake: IntakeRepository, views: ViewsRepository, clock: Any
) -> None:
    await intake.put_balances([Balance("acme", 70, 7, leased=3), Balance("other", 1, 0)])
    await intake.put_balances([Balance("acme", 50, 5), Balance("acme", 90, 9, 1), Balance("acme", 80, 8)])
    await intake.put_account(Account("acme", "Acme", clock()))
    found = await views.account("acme")
    assert found == Account("acme", "Acme", clock(), available=90, leased=1)
    assert found.balance == 91
    assert await views.account("other") == Account("other", available=1)
    assert await views.account("nobody") is None
    assert await views.account_count() == 2


async def test_accounts_come_page_by_page(intake: IntakeRepository, views: ViewsRepository) -> None:
    await intake.put_balances([Balance(account, 1, 1) for account in ("c", "a", "b")])
    assert [one.id for one in await views.accounts(after=None, limit=2)] == ["a", "b"]
    assert [one.id for one in await views.accounts(after="b", limit=2)] == ["c"]


async def test_an_account_is_marked_until_it_has_as_much_again(
    intake: IntakeRepository, views: ViewsRepository
) -> None:
    async def marked() -> list[tuple[str, str]]:
        found = [one for one in await views.accounts(after=None, limit=9) if one.alert]
        assert {one.id for one in found} == {one.id for one in await views.low_accounts(9)}
        return [(one.id, one.alert) for one in await views.low_accounts(9)]

    await intake.put_balances([Balance("acme", 60, 1, leased=40), Balance("never", 0, 1)])
    assert await marked() == []
    await intake.put_low_limit("acme", 101)
    await intake.put_balances([Balance("poor", 0, 1)])
    await intake.put_low_limit("poor", None)  # before any limit was heard of
    assert await marked() == [("poor", "exhausted"), ("acme", "low")]
    assert [one.id for one in await views.low_accounts(1)] == ["poor"]
    await intake.put_balances([Balance("acme", 0, 2), Balance("poor", 1, 2)])
    await intake.put_low_limit("acme", None)
    assert await marked() == [("acme", "exhausted")]
    await intake.put_balances([Balance("acme", 0, 3, leased=100)])
    assert await marked() == [("acme", "low")]
    await intake.put_balances([Balance("acme", 1, 4, leased=100)])
    assert await marked() == []
    await intake.put_low_limit("acme", 50)
    await intake.put_balances([Balance("acme", 50, 5)])
    assert await marked() == []


async def test_a_request_is_counted_once_however_often_it_is_told(
    intake: IntakeRepository, views: ViewsRepository, clock: Any, charge: Callable[..., Charge]
) -> None:
    first = charge("req_1", input_tokens=10, cached_input_tokens=2, output_tokens=3, nano_credits=40)
    second = charge("req_2", model="whisper", audio_milliseconds=900, nano_credits=60)
    await intake.add_charges([first, first])
    await intake.add_charges([first, second])
    await intake.add_charges([])
    assert await views.charges(account=None, after=None, limit=10) == [second, first]
    assert await views.account("acme") == Account("acme", charged=100, requests=2)
    assert await views.totals(clock() - timedelta(hours=1)) == Totals(2, 15, 100)
    assert await views.usage_by_model("acme", clock()) == [
        ModelUsage("whisper", 1, {"audio_milliseconds": 900}, 60),
        ModelUsage("smol", 1, {"input_tokens": 10, "cached_input_tokens": 2, "output_tokens": 3}, 40),
    ]


async def test_replicas_count_the_same_requests_once(
    intake: IntakeRepository, views: ViewsRepository, charge: Callable[..., Charge]
) -> None:
    charges = [charge(f"req_{number}", f"acme{number % 3}") for number in range(30)]
    await asyncio.gather(*(intake.add_charges(charges[start : start + 20]) for start in (0, 5, 10, 0)))
    assert [(one.requests, one.charged) for one in await views.accounts(after=None, limit=9)] == [
        (10, 1000)
    ] * 3


async def test_totals_are_exact_to_the_second_and_stay_when_charges_are_dropped(
    intake: IntakeRepository, views: ViewsRepository, clock: Any, charge: Callable[..., Charge]
) -> None:
    clock.advance(minutes=30)
    for number in range(4):  # at 12:30, 13:20, 14:10 and 15:00
        await intake.add_charges([charge(f"req_{number}", output_tokens=1, nano_credits=10**number)])
        clock.advance(minutes=50)
    noon = clock() - timedelta(minutes=230)
    for minutes, total in [(0, 1111), (30, 1111), (31, 1110), (80, 1110), (81, 1100), (180, 1000), (181, 0)]:
        assert (await views.totals(noon + timedelta(minutes=minutes))).nano_credits == total
    assert await intake.forget_charges(clock(), 3) == 3
    assert await intake.forget_charges(clock(), 3) == 1
    assert await views.totals(noon - timedelta(hours=2)) == Totals(4, 4, 1111)
    assert await views.account("acme") == Account("acme", charged=1111, requests=4)


async def test_charges_come_page_by_page_of_one_account_or_all(
    intake: IntakeRepository, views: ViewsRepository, charge: Callable[..., Charge]
) -> None:
    for number, account in enumerate(["acme", "other", "acme"]):
        await intake.add_charges([charge(f"req_{number}", account)])

    async def page(account: str | None, after: str | None) -> list[str]:
        found = await views.charges(account=account, after=after, limit=2)
        return [one.request_id for one in found]

    assert await page(None, None) == ["req_2", "req_1"]
    assert await page(None, "req_1") == ["req_0"]
    assert await page("acme", None) == ["req_2", "req_0"]
    assert await page("acme", "req_2") == ["req_0"]
    assert await page("acme", "req_gone") == []


async def test_a_revoked_key_stays_revoked(
    intake: IntakeRepository, views: ViewsRepository, clock: Any
) -> None:
    created = ApiKey("key1", "acme", KeyTerms("laptop"), clock())
    revoked = replace(created, revoked_at=clock() + timedelta(hours=1))
    await intake.put_key(created, clock())
    assert await views.keys("acme", 10) == [created]
    await intake.put_key(revoked, clock())
    await intake.put_key(created, clock() + timedelta(hours=2))
    assert await views.keys("acme", 10) == [revoked]
    assert await views.keys("other", 10) == []


async def test_a_key_is_what_was_told_last_in_any_order(
    intake: IntakeRepository, views: ViewsRepository, clock: Any
) -> None:
    created = ApiKey("key1", "acme", KeyTerms("laptop"), clock())
    terms = KeyTerms(
        name="desktop",
        labels={"team": "search"},
        endpoints=("/v1/embeddings",),
        models=("smol",),
        limits=RateLimits(requests_per_minute=60, concurrent_requests=0),
        budget=Budget(5 * 10**9, "month"),
    )
    later = clock() + timedelta(hours=1)
    updated = replace(created, terms=terms, expires_at=later, previous_secret_expires_at=later)
    await intake.put_key(updated, later)
    await intake.put_key(created, clock())
    assert await views.keys("acme", 10) == [updated]
    plain = replace(created, terms=KeyTerms("phone"))
    await intake.put_key(plain, later + timedelta(hours=1))
    assert await views.keys("acme", 10) == [plain]
    revoked = replace(plain, revoked_at=later)  # by a replica whose clock is behind
    await intake.put_key(revoked, later)
    assert await views.keys("acme", 10) == [revoked]


async def test_a_model_is_what_was_announced_last(
    intake: IntakeRepository, views: ViewsRepository, clock: Any
) -> None:
    one, two = (Deployment(f"smol-{n}", "smol", "chat", f"http://chat{n}", n, 100) for n in (1, 2))
    model = Model("smol", "acme", ["chat"], 2048, [one, two])
    assert await intake.put_model(model, clock())
    await intake.put_deployments(model)
    assert await views.models(clock()) == [model]
    fewer = Model("smol", "acme", ["chat", "completion"], 4096, [two])
    assert await intake.put_model(fewer, clock() + timedelta(hours=1))
    await intake.put_deployments(fewer)
    assert not await intake.put_model(model, clock())
    assert await views.models(clock()) == [fewer]
    await intake.put_deployments(Model("smol", "acme", [], 0))
    assert await views.models(clock()) == []
    assert await views.deployments() == []


async def test_the_price_shown_is_the_one_in_force(
    intake: IntakeRepository, views: ViewsRepository, clock: Any
) -> None:
    model = Model("smol", "acme", ["chat"], 0, [Deployment("d", "smol", "chat", "http://chat", 1, 1)])
    await intake.put_model(model, clock())
    await intake.put_deployments(model)
    for days, amount in [(0, 1), (2, 3), (1, 2)]:
        price = Price(f"price-{days}", "smol", {"images": amount}, clock() + timedelta(days=days))
        await intake.put_price(price)
        await intake.put_price(price)
    shown = [(await views.models(clock() + timedelta(days=days)))[0].prices for days in (-1, 0, 1, 5)]
    assert shown == [None, {"images": 1}, {"images": 2}, {"images": 3}]


async def test_the_health_of_a_deployment_is_the_last_observed_and_since_when(
    intake: IntakeRepository, views: ViewsRepository, clock: Any
) -> None:
    model = Model("smol", "acme", ["chat"], 0, [Deployment("d", "smol", "chat", "http://chat", 1, 1)])
    began = clock()
    for minutes, health in [(0, "unhealthy"), (5, "unhealthy"), (3, "healthy")]:
        observed_at = began + timedelta(minutes=minutes)
        await intake.put_health(Health("d", health, f"at {minutes}", observed_at))
    await intake.put_model(model, clock())
    await intake.put_deployments(model)
    (found,) = await views.deployments()
    assert (found.health, found.reason, found.since) == ("unhealthy", "at 5", began)


async def test_tasks_come_page_by_page_until_they_are_old(
    intake: IntakeRepository, views: ViewsRepository, clock: Any
) -> None:
    for number in range(3):
        task = Task(f"task-{number}", "acme", "chat.completions", "failed", "bad_request: no", clock())
        await intake.add_task(task)
        await intake.add_task(task)
        clock.advance(hours=1)
    assert [one.id for one in await views.tasks(after=None, limit=2)] == ["task-2", "task-1"]
    assert [one.id for one in await views.tasks(after="task-1", limit=2)] == ["task-0"]
    assert await intake.forget_tasks(clock() - timedelta(minutes=90), 10) == 2
    assert [one.id for one in await views.tasks(after=None, limit=9)] == ["task-2"]
