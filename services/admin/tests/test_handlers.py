"""Events of other services, and what becomes of them in the read model."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from dozen.credits.v1.credits_events_pb2 import (
    AccountOpened,
    BalanceChanged,
    BalanceExhausted,
    BalanceLow,
    CreditsGranted,
    UsageRated,
)
from dozen.credits.v1.credits_pb2 import Balance, Charge
from dozen.gateway.v1.gateway_events_pb2 import (
    ApiKeyCreated,
    ApiKeyRevoked,
    ApiKeysAnnounced,
    ApiKeyUpdated,
)
from dozen.gateway.v1.gateway_pb2 import KEY_BUDGET_PERIOD_MONTH
from dozen.jobs.v1.jobs_events_pb2 import TaskFinished
from dozen.jobs.v1.jobs_pb2 import TASK_STATE_FAILED
from dozen.models.v1.models_events_pb2 import DeploymentHealthChanged, ModelRegistered, PriceChanged
from dozen.models.v1.models_pb2 import HEALTH_HEALTHY
from dozen_admin.domain.accounts import Account
from dozen_admin.domain.keys import ApiKey, Budget, KeyTerms, RateLimits
from dozen_admin.domain.usage import ModelUsage
from dozen_admin.handlers.table import HANDLERS
from dozen_admin.repository.intake import IntakeRepository
from dozen_admin.repository.views import ViewsRepository
from dozen_admin.service.intake import IntakeService
from dozen_chassis.events import Delivery
from dozen_chassis.postgres import Database

pytestmark = pytest.mark.integration

PUBLISHED = datetime(2026, 5, 4, 12, tzinfo=UTC)
CREATED = datetime(2026, 5, 1, tzinfo=UTC)


def timestamp(time: datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(time)
    return made


class Desk:
    """Hands events to their handlers, and reads what has become of them."""

    def __init__(self, database: Database) -> None:
        self.intake = IntakeService(IntakeRepository(database))
        self.views = ViewsRepository(database)

    async def hand(self, event: Message, delivery: str = "event-1") -> None:
        await HANDLERS[type(event)](event, Delivery(delivery, 1, PUBLISHED), self.intake)


@pytest.fixture
def desk(database: Database) -> Desk:
    return Desk(database)


def rated(request_id: str, version: int) -> UsageRated:
    charge = Charge(nano_credits=40)
    charge.usage.request_id = request_id
    charge.usage.account_id = "acme"
    charge.usage.model = "smol"
    charge.usage.quantities["input_tokens"] = 7
    return UsageRated(
        charges=[charge],
        balances=[Balance(account_id="acme", available_nano_credits=100 - 40 * version, version=version)],
    )


async def test_an_account_is_what_its_events_say_in_any_order(desk: Desk) -> None:
    opened = AccountOpened()
    opened.account.id, opened.account.name = "acme", "Acme"
    opened.account.created_at.CopyFrom(timestamp(CREATED))
    opened.balance.account_id = "acme"
    granted = CreditsGranted(balance=Balance(account_id="acme", available_nano_credits=100, version=0))
    for event, delivery in [(rated("req_1", 1), "e1"), (granted, "e2"), (opened, "e3")]:
        await desk.hand(event, delivery)
    expected = Account("acme", "Acme", CREATED, available=60, charged=40, requests=1)
    assert await desk.views.account("acme") == expected


async def test_a_delivery_that_is_repeated_and_a_charge_that_is_retold_change_nothing(desk: Desk) -> None:
    await desk.hand(rated("req_1", 1), "e1")
    await desk.hand(rated("req_1", 1), "e1")
    await desk.hand(rated("req_1", 1), "e2")
    found = await desk.views.account("acme")
    assert found is not None
    assert (found.available, found.charged, found.requests) == (60, 40, 1)
    (charge,) = await desk.views.charges(account=None, after=None, limit=10)
    assert charge.finished_at == PUBLISHED  # where the event does not tell
    assert await desk.views.usage_by_model("acme", CREATED) == [
        ModelUsage("smol", 1, {"input_tokens": 7}, 40)
    ]


async def test_a_balance_has_two_parts_and_changes_by_every_event(desk: Desk) -> None:
    def balance(available: int, leased: int, version: int) -> Balance:
        return Balance(
            account_id="acme",
            available_nano_credits=available,
            leased_nano_credits=leased,
            version=version,
        )

    async def seen() -> tuple[int, int, str]:
        found = await desk.views.account("acme")
        assert found is not None
        return found.available, found.leased, found.alert

    await desk.hand(CreditsGranted(balance=balance(90, 10, 1)))
    assert await seen() == (90, 10, "")
    await desk.hand(BalanceChanged(balance=balance(30, 10, 2), nano_credits=-60))
    assert await seen() == (30, 10, "")
    await desk.hand(BalanceLow(balance=balance(20, 5, 3), limit_nano_credits=50))
    assert await seen() == (20, 5, "low")
    await desk.hand(BalanceExhausted(balance=balance(0, 0, 4)))
    assert await seen() == (0, 0, "exhausted")
    await desk.hand(BalanceChanged(balance=balance(10, 0, 5), nano_credits=10))
    assert await seen() == (10, 0, "low")
    await desk.hand(BalanceExhausted(balance=balance(0, 0, 4)))
    await desk.hand(CreditsGranted(balance=balance(60, 0, 6)))
    assert await seen() == (60, 0, "")


async def test_a_request_that_used_nothing_is_no_charge(desk: Desk) -> None:
    event = rated("req_1", 1)
    nothing = event.charges.add().usage
    nothing.request_id, nothing.account_id = "req_2", "acme"
    nothing.quantities["input_tokens"] = 0
    await desk.hand(event)
    (charge,) = await desk.views.charges(account=None, after=None, limit=10)
    assert charge.request_id == "req_1"
    found = await desk.views.account("acme")
    assert found is not None
    assert found.requests == 1


async def test_keys_are_learnt_from_an_announcement(desk: Desk) -> None:
    announced = ApiKeysAnnounced()
    for name in ("key1", "key2"):
        key = announced.api_keys.add(id=name, account_id="acme", name=name)
        key.created_at.CopyFrom(timestamp(CREATED))
    announced.api_keys[1].revoked_at.CopyFrom(timestamp(PUBLISHED))
    await desk.hand(announced)
    await desk.hand(announced)
    found = {key.id: key.revoked_at for key in await desk.views.keys("acme", 10)}
    assert found == {"key1": None, "key2": PUBLISHED}


async def test_keys_are_created_changed_and_revoked(desk: Desk) -> None:
    created = ApiKeyCreated()
    created.api_key.id, created.api_key.account_id, created.api_key.name = "key1", "acme", "laptop"
    created.api_key.created_at.CopyFrom(timestamp(CREATED))
    await desk.hand(created)
    plain = ApiKey("key1", "acme", KeyTerms("laptop"), CREATED)
    assert await desk.views.keys("acme", 10) == [plain]
    updated = ApiKeyUpdated(api_key=created.api_key)
    key = updated.api_key
    key.labels["team"] = "search"
    key.endpoints.append("/v1/embeddings")
    key.models.append("smol")
    key.limits.requests_per_minute, key.limits.concurrent_requests = 60, 0
    key.budget.nano_credits, key.budget.period = 7, KEY_BUDGET_PERIOD_MONTH
    key.expires_at.CopyFrom(timestamp(PUBLISHED))
    key.previous_secret_expires_at.CopyFrom(timestamp(CREATED))
    await desk.hand(updated)
    limits = RateLimits(requests_per_minute=60, concurrent_requests=0)
    terms = KeyTerms("laptop", {"team": "search"}, ("/v1/embeddings",), ("smol",), limits, Budget(7, "month"))
    changed = replace(plain, terms=terms, expires_at=PUBLISHED, previous_secret_expires_at=CREATED)
    assert await desk.views.keys("acme", 10) == [changed]
    await desk.hand(ApiKeyRevoked(api_key=key))
    assert await desk.views.keys("acme", 10) == [replace(changed, revoked_at=PUBLISHED)]


async def test_a_model_has_its_deployments_health_and_price(desk: Desk) -> None:
    health: Any = DeploymentHealthChanged(deployment_id="d1", model_id="smol", health=HEALTH_HEALTHY)
    await desk.hand(health)
    registered = ModelRegistered()
    registered.model.id, registered.model.context_length = "smol", 2048
    registered.model.capabilities.append("chat")
    registered.model.deployments.add(id="d1", service="chat", address="http://chat:8080", priority=1)
    await desk.hand(registered)
    price = PriceChanged()
    price.price.id, price.price.model_id, price.price.nano_credits["images"] = "p1", "smol", 5
    await desk.hand(price)
    (model,) = await desk.views.models(PUBLISHED)
    assert (model.id, model.context_length, model.capabilities) == ("smol", 2048, ["chat"])
    assert model.prices == {"images": 5}
    (deployment,) = model.deployments
    assert (deployment.health, deployment.since, deployment.model) == ("healthy", PUBLISHED, "smol")


async def test_a_finished_task_is_kept_with_its_error(desk: Desk) -> None:
    event = TaskFinished(
        task_id="task-1", account_id="acme", type="chat.completions", state=TASK_STATE_FAILED
    )
    event.error.code, event.error.message = "timeout", "took too long " * 200
    await desk.hand(event)
    (task,) = await desk.views.tasks(after=None, limit=10)
    assert (task.state, task.error[:15], len(task.error)) == ("failed", "timeout: took t", 1000)
