"""The administration of the limits of accounts, with a fake store and a real database."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING

import pytest

from dozen.gateway.v1 import gateway_service_pb2, gateway_service_pb2_grpc
from dozen.gateway.v1.gateway_pb2 import AccountLimits
from dozen.gateway.v1.gateway_pb2 import RateLimits as RateLimitsMessage
from dozen.gateway.v1.gateway_service_pb2 import ListAccountLimitsRequest, SetAccountLimitsRequest
from dozen.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from dozen_chassis.errors import InvalidRequest
from dozen_chassis.grpc import GrpcService
from dozen_chassis.postgres import Database
from dozen_gateway.domain.limits import LARGEST_LIMIT, RateLimits
from dozen_gateway.domain.state import Snapshot, State
from dozen_gateway.errors.keys import InvalidAccountId
from dozen_gateway.repository.keys import KeysRepository
from dozen_gateway.repository.limits import LimitsRepository, account_limits
from dozen_gateway.repository.read_models import ReadModelsRepository
from dozen_gateway.service.account_limits import MOST_ENTRIES, AccountLimitsService
from dozen_gateway.service.decisions import DecisionService
from dozen_gateway.service.keys import KeyService
from dozen_gateway.servicer import GatewayServicer
from dozen_testing.grpc import channel_to

if TYPE_CHECKING:
    from dozen.gateway.v1.gateway_service_pb2_grpc import GatewayServiceAsyncStub  # in the stub file only


class FakeStore:
    def __init__(self) -> None:
        self.kept: dict[str, dict[str, RateLimits]] = {}

    async def set_account_limits(self, account: str, model: str, limits: RateLimits) -> None:
        models = self.kept.setdefault(account, {})
        models.pop(model, None)
        if limits != RateLimits():
            models[model] = limits

    async def account_limits(self, account: str) -> Mapping[str, RateLimits]:
        return self.kept.get(account, {})


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.integration)])
def service(request: pytest.FixtureRequest) -> AccountLimitsService:
    if request.param == "fake":
        return AccountLimitsService(FakeStore())
    return AccountLimitsService(LimitsRepository(request.getfixturevalue("database")))


def limits(account: str = "acme", model: str = "", **bounds: int) -> AccountLimits:
    return AccountLimits(account_id=account, model=model, limits=RateLimitsMessage(**bounds))


async def test_limits_are_set_replaced_listed_and_removed(service: AccountLimitsService) -> None:
    whole = limits(requests_per_minute=60, tokens_per_minute=LARGEST_LIMIT, concurrent_requests=1)
    assert await service.set(whole) == whole
    await service.set(limits(model="smol", tokens_per_minute=5))
    await service.set(limits(account="other", requests_per_minute=1))
    assert await service.list("acme") == [whole, limits(model="smol", tokens_per_minute=5)]
    await service.set(limits(model="smol", requests_per_minute=7))
    await service.set(limits())
    assert await service.list("acme") == [limits(model="smol", requests_per_minute=7)]
    await service.set(limits(model="smol"))
    assert await service.list("acme") == []


@pytest.mark.parametrize(
    ("message", "param"),
    [
        (limits(requests_per_minute=0), "requests_per_minute"),
        (limits(tokens_per_minute=-1), "tokens_per_minute"),
        (limits(concurrent_requests=LARGEST_LIMIT + 1), "concurrent_requests"),
        (limits(model="m" * 257, requests_per_minute=1), "model"),
        (limits(model="\0", requests_per_minute=1), "model"),
    ],
)
async def test_limits_that_are_none_are_refused(message: AccountLimits, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await AccountLimitsService(FakeStore()).set(message)
    assert refused.value.param == param


async def test_an_account_has_an_id_and_not_too_many_limits() -> None:
    store = FakeStore()
    service = AccountLimitsService(store)
    with pytest.raises(InvalidAccountId):
        await service.set(limits(account="A"))
    with pytest.raises(InvalidAccountId):
        await service.list("")
    store.kept["acme"] = {str(number): RateLimits(1) for number in range(MOST_ENTRIES)}
    with pytest.raises(InvalidRequest):
        await service.set(limits(model="smol", requests_per_minute=1))
    await service.set(limits(model="7", requests_per_minute=2))
    await service.set(limits(model="smol"))


@pytest.mark.integration
async def test_every_replica_is_told_of_limits(database: Database) -> None:
    repository = LimitsRepository(database)
    await repository.set_account_limits("other", "", RateLimits(requests_per_minute=1))
    changes = ReadModelsRepository(database).changes()
    async with asyncio.timeout(20):
        assert (await anext(changes)).account_limits == {"other": {"": RateLimits(requests_per_minute=1)}}
        await repository.set_account_limits("acme", "smol", RateLimits(tokens_per_minute=5))
        change = {"acme": {"smol": RateLimits(tokens_per_minute=5)}}
        assert await anext(changes) == Snapshot(account_limits=change)
        await repository.set_account_limits("acme", "smol", RateLimits())
        assert await anext(changes) == Snapshot(account_limits={"acme": {}})


@pytest.mark.integration
async def test_limits_are_read_of_some_accounts_of_all_or_of_none(database: Database) -> None:
    await LimitsRepository(database).set_account_limits("acme", "", RateLimits(concurrent_requests=3))
    kept = {"acme": {"": RateLimits(concurrent_requests=3)}}
    assert await account_limits(database.pool, None) == kept
    assert await account_limits(database.pool, ["acme", "other"]) == kept | {"other": {}}
    assert await account_limits(database.pool, []) == {}


@pytest.fixture
async def stub(
    database: Database, decisions_on: Callable[[State, str, bytes], DecisionService]
) -> AsyncIterator["GatewayServiceAsyncStub"]:
    state = State()
    servicer = GatewayServicer(
        decisions_on(state, "http://none", b"master"),
        KeyService(KeysRepository(database), state, b"server key"),
        AccountLimitsService(LimitsRepository(database)),
    )
    service = GrpcService(
        gateway_service_pb2.DESCRIPTOR,
        gateway_service_pb2_grpc.add_GatewayServiceServicer_to_server,
        servicer,
    )
    async with channel_to(service) as channel:
        yield GatewayServiceStub(channel)


@pytest.mark.integration
async def test_limits_are_administered_by_grpc(stub: "GatewayServiceAsyncStub") -> None:
    wanted = limits(requests_per_minute=60)
    assert (await stub.SetAccountLimits(SetAccountLimitsRequest(limits=wanted))).limits == wanted
    listed = await stub.ListAccountLimits(ListAccountLimitsRequest(account_id="acme"))
    assert list(listed.limits) == [wanted]
