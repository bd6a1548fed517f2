"""Handlers of the credits service: from messages to charges."""

from datetime import UTC, datetime, timedelta

import pytest

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen.models.v1.models_events_pb2 import PriceChanged
from dozen.models.v1.models_pb2 import Price
from dozen_chassis.errors import TRANSIENT, ServiceError
from dozen_chassis.events import Delivery
from dozen_chassis.postgres import Database
from dozen_credits.handlers import Intake, on_price_changed, on_usage_reported
from dozen_credits.repository.accounts import AccountsRepository
from dozen_credits.repository.metering import MeteringRepository
from dozen_credits.repository.reconciliation import ReconciliationRepository
from dozen_credits.service.accounts import Accounts
from dozen_credits.service.metering import Metering
from dozen_credits.service.reconciliation import Reconciliations

pytestmark = pytest.mark.integration

PUBLISHED = datetime(2026, 10, 5, 12, 30, tzinfo=UTC)
DELIVERY = Delivery("event1", 1, PUBLISHED)


def record(request_id: str, finished_at: datetime | None = None) -> UsageRecord:
    made = UsageRecord(
        request_id=request_id,
        account_id="acme",
        key_id="key1",
        model="model1",
        deployment_id="deployment1",
        operation="POST /v1/embeddings",
        price_id="price1",
        quantities={"input_tokens": 3},
        estimated=True,
        lease_id="lease_1",
    )
    if finished_at:
        made.finished_at.FromDatetime(finished_at)
    return made


@pytest.fixture
async def intake(database: Database) -> Intake:
    await Accounts(AccountsRepository(database)).open("acme", "Acme")
    return Intake(
        Metering(MeteringRepository(database), price_attempts=5, low_balance=0),
        Reconciliations(
            ReconciliationRepository(database), services=["chat"], answer_within=timedelta(minutes=1)
        ),
    )


async def test_a_record_is_kept_as_it_was_reported(database: Database, intake: Intake) -> None:
    price = Price(id="price1", model_id="model1", nano_credits={"input_tokens": 2})
    await on_price_changed(PriceChanged(price=price), DELIVERY, intake)
    await on_usage_reported(UsageReported(records=[record("req_1", PUBLISHED)]), DELIVERY, intake)
    (row,) = await database.pool.fetch("select * from usage")
    assert row["rated_at"] > PUBLISHED
    assert dict(row) == {
        "request_id": "req_1",
        "account_id": "acme",
        "key_id": "key1",
        "model": "model1",
        "deployment_id": "deployment1",
        "operation": "POST /v1/embeddings",
        "price_id": "price1",
        "quantities": '{"input_tokens": 3}',
        "nano_credits": 6,
        "written_off": 6,
        "refunded": 0,
        "lease_id": "lease_1",
        "estimated": True,
        "finished_at": PUBLISHED,
        "rated_at": row["rated_at"],
    }


async def test_nothing_finishes_after_it_was_reported(database: Database, intake: Intake) -> None:
    price = Price(id="price1", model_id="model1", nano_credits={"input_tokens": 2})
    await on_price_changed(PriceChanged(price=price), DELIVERY, intake)
    records = [record("req_1"), record("req_2", PUBLISHED + timedelta(days=400)), record("\0")]
    await on_usage_reported(UsageReported(records=records), DELIVERY, intake)
    rows = await database.pool.fetch("select request_id, finished_at from usage order by request_id")
    assert [tuple(row) for row in rows] == [("req_1", PUBLISHED), ("req_2", PUBLISHED)]
    assert await database.pool.fetchval("select request_id from unrated_usage") == r"'\x00'"


async def test_usage_without_its_price_is_to_be_delivered_again(intake: Intake) -> None:
    with pytest.raises(ServiceError) as raised:
        await on_usage_reported(UsageReported(records=[record("req_1")]), DELIVERY, intake)
    assert raised.value.status in TRANSIENT


async def test_a_senseless_price_is_set_aside(intake: Intake) -> None:
    with pytest.raises(ServiceError) as raised:
        await on_price_changed(PriceChanged(), DELIVERY, intake)
    assert raised.value.status not in TRANSIENT
