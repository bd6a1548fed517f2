"""What other services tell of arrives in the database, in whatever order it comes."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.message import Message

from dozen.credits.v1.credits_events_pb2 import AccountOpened, CreditsGranted, UsageRated
from dozen.credits.v1.credits_pb2 import Balance
from dozen.models.v1.models_events_pb2 import (
    BREAKER_STATE_HALF_OPEN,
    BREAKER_STATE_OPEN,
    DeploymentHealthChanged,
    ModelRegistered,
    PriceChanged,
    UpstreamObservation,
    UpstreamsObserved,
)
from dozen.models.v1.models_pb2 import (
    HEALTH_HEALTHY,
    HEALTH_UNHEALTHY,
    HEALTH_UNSPECIFIED,
    Deployment,
    Health,
    Model,
    Price,
)
from dozen_chassis.events import Delivery
from dozen_chassis.postgres import Database
from dozen_gateway.domain import state
from dozen_gateway.domain.state import Account, Snapshot, State
from dozen_gateway.handlers import HANDLERS, observations
from dozen_gateway.repository.read_models import ReadModelsRepository
from dozen_gateway.service.holds import HoldService
from dozen_gateway.service.loads import OBSERVED, LoadService
from dozen_gateway.service.read_models import ReadModelService

pytestmark = pytest.mark.integration

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)


Handle = Callable[..., Awaitable[Snapshot]]


@pytest.fixture
def handle(database: Database, holds_on: Callable[[State], HoldService]) -> Handle:
    """Hands an event over; gives what is kept then."""
    repository, state = ReadModelsRepository(database), State()
    read_models = ReadModelService(repository, state, holds_on(state), max_age=300)

    async def handle(event: Message, at: datetime = NOW) -> Snapshot:
        await HANDLERS[type(event)](event, Delivery("event-1", 1, at), read_models)
        return await repository.read()

    return handle


async def test_balances_are_taken_from_every_event_that_has_them(handle: Handle) -> None:
    opened = AccountOpened(balance=Balance(account_id="acme", available_nano_credits=0, version=1))
    granted = CreditsGranted(balance=Balance(account_id="acme", available_nano_credits=9, version=2))
    assert (await handle(opened)).accounts == {"acme": Account(0, 1)}
    assert (await handle(granted)).accounts == {"acme": Account(9, 2)}
    assert (await handle(opened)).accounts == {"acme": Account(9, 2)}


async def test_of_several_balances_in_one_event_the_newest_is_taken(handle: Handle) -> None:
    rated = UsageRated(
        balances=[
            Balance(account_id="acme", available_nano_credits=3, version=5),
            Balance(account_id="acme", available_nano_credits=4, version=4),
            Balance(account_id="other", available_nano_credits=1, version=1),
        ]
    )
    assert (await handle(rated)).accounts == {"acme": Account(3, 5), "other": Account(1, 1)}


async def test_a_model_is_taken_whole(handle: Handle) -> None:
    deployment = Deployment(id="smol-1", service="chat", address="http://chat:8080/", priority=1, weight=100)
    model = Model(
        id="a/smol", capabilities=["chat"], context_length=2048, deployments=[deployment],
        fallbacks=["a/large", "a/small"], cache_seconds=60, content_filter=True,
    )  # fmt: skip
    known = await handle(ModelRegistered(model=model))
    assert known.models == {
        "a/smol": state.Model(
            "a/smol",
            frozenset({"chat"}),
            2048,
            (state.Deployment("smol-1", "chat", "http://chat:8080", 1, 100),),
            ("a/large", "a/small"),
            60,
            content_filter=True,
        )
    }
    del model.deployments[:]
    known = await handle(ModelRegistered(model=model), NOW + timedelta(seconds=1))
    assert known.models["a/smol"].deployments == ()


async def test_a_price_is_taken_with_its_beginning(handle: Handle) -> None:
    price = Price(id="price-1", model_id="smol", nano_credits={"input_tokens": 5})
    price.effective_from.FromDatetime(NOW)
    known = await handle(PriceChanged(price=price))
    assert known.prices == {"smol": (state.Price("price-1", {"input_tokens": 5}, NOW.timestamp()),)}


@pytest.mark.parametrize(
    ("health", "usable"),
    [(HEALTH_HEALTHY, True), (HEALTH_UNHEALTHY, False), (HEALTH_UNSPECIFIED, True)],
)
async def test_only_an_unhealthy_deployment_takes_no_requests(
    handle: Handle, health: Health.ValueType, usable: bool
) -> None:
    changed = DeploymentHealthChanged(deployment_id="smol-1", model_id="smol", health=health)
    changed.observed_at.FromDatetime(NOW)
    assert (await handle(changed)).usable == {"smol-1": usable}


async def test_what_processes_tell_of_deployments_is_heard() -> None:
    async def told() -> AsyncIterator[UpstreamsObserved]:
        yield UpstreamsObserved(
            observer="chat-1",
            upstreams=[
                UpstreamObservation(
                    deployment_id="smol-1", requests=2, running=3, waiting=1, kv_cache_usage=0.5,
                    first_byte_seconds=0.2, breaker=BREAKER_STATE_OPEN,
                ),
                UpstreamObservation(deployment_id="smol-2", requests=-1, breaker=BREAKER_STATE_HALF_OPEN),
            ],
        )  # fmt: skip

    known = State()
    await LoadService(known, longest_request=60, monotonic=lambda: 5.0).follow(observations(told()))
    one, two = known.loads.known["smol-1"], known.loads.known["smol-2"]
    assert (one.at(5.0), one.is_pressed, one.first_byte_seconds, one.opened) == (4, True, 0.2, 1.0)
    assert (two.at(5.0), two.is_pressed, two.opened) == (0, False, 0.0)


async def test_loads_that_nobody_tells_of_are_swept() -> None:
    known, now = State(), 5.0
    loads = LoadService(known, longest_request=60, monotonic=lambda: now)
    known.loads.begin("req_1", "smol-1", now)
    await loads.sweep()
    (sample,) = next(iter(OBSERVED.collect())).samples
    assert sample.value == 1
    now += 61
    await loads.sweep()
    assert not known.loads.known
