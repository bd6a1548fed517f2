"""The whole service: official client, real database and NATS, and small servers that are probed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
import yaml
from google.protobuf.message import Message
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from openai import NotFoundError
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from dozen.models.v1 import models_pb2
from dozen.models.v1.models_events_pb2 import (
    BREAKER_STATE_OPEN,
    DeploymentHealthChanged,
    ModelRegistered,
    PriceChanged,
    UpstreamObservation,
    UpstreamsObserved,
)
from dozen.models.v1.models_service_pb2 import GetModelRequest, ListModelsRequest, WatchHealthRequest
from dozen.models.v1.models_service_pb2_grpc import ModelsServiceStub
from dozen_chassis.grpc import RemoteError, open_channel, remote_errors
from dozen_chassis.postgres import Database
from dozen_chassis.run import Serving, serving
from dozen_chassis.signing import caller_token
from dozen_models.app import create_app
from dozen_models.domain.health import Health
from dozen_models.errors import InvalidSeed
from dozen_models.repository import ModelsRepository
from dozen_models.service.store import DEPLOYMENTS_CHANNEL
from dozen_models.settings import Settings
from dozen_testing.clients import openai_client
from dozen_testing.conditions import eventually
from dozen_testing.http import Signer, serve

if TYPE_CHECKING:
    from dozen.models.v1.models_service_pb2_grpc import ModelsServiceAsyncStub  # in the stub file only

pytestmark = pytest.mark.integration

Event = TypeVar("Event", bound=Message)
Start = Callable[..., Any]

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def start(base_settings: dict[str, Any], tmp_path: Path) -> Start:
    """Run the service on a catalogue with these deployments of `acme/llama`, by their health URLs."""

    @asynccontextmanager
    async def start(deployments: Mapping[str, str], **settings: Any) -> AsyncIterator[Serving]:
        model = {
            "id": "acme/llama",
            "owned_by": "acme",
            "capabilities": ["chat"],
            "context_length": 2048,
            "prices": {"input_tokens": 150},
            "deployments": [
                {
                    "id": id,
                    "service": "chat",
                    "address": NOWHERE,
                    "health_url": url,
                    "priority": 1,
                    "weight": 1,
                }
                for id, url in deployments.items()
            ],
        }
        seed = tmp_path / "models.yaml"
        seed.write_text(yaml.safe_dump({"models": [model]}))
        async with serving(
            "models", create_app, Settings(**base_settings | settings, seed_file=seed)
        ) as server:
            yield server

    return start


@pytest.fixture
async def stub(base_settings: dict[str, Any]) -> AsyncIterator[Callable[[Serving], "ModelsServiceAsyncStub"]]:
    """Give a stub of a running service."""
    async with AsyncExitStack() as channels:

        def stub(server: Serving) -> "ModelsServiceAsyncStub":
            token = caller_token(bytes.fromhex(base_settings["grpc_key"]), "gateway")
            channel = open_channel(f"127.0.0.1:{server.grpc_port}", token)
            channels.push_async_callback(channel.close)
            return ModelsServiceStub(channel)

        yield stub


async def healthy(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("ok")(scope, receive, send)


async def hanging(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await asyncio.Event().wait()


async def heard(
    subscription: Subscription, kind: type[Event], wanted: Callable[[Event], bool] = lambda _: True
) -> Event:
    """Wait for an event."""
    async with asyncio.timeout(5):
        while True:
            event = kind.FromString((await subscription.next_msg(timeout=5)).data)
            if wanted(event):
                return event


async def test_the_official_client_lists_and_retrieves_models(start: Start, signer: Signer) -> None:
    async with serve(healthy) as url, start({"one": url}) as server:
        client = openai_client(f"http://127.0.0.1:{server.http_port}", signer)
        (model,) = (await client.models.list()).data
        assert (model.id, model.object, model.owned_by) == ("acme/llama", "model", "acme")
        assert isinstance(model.created, int)
        async with asyncio.timeout(10):
            while (found := (await client.models.retrieve("acme/llama")).to_dict())["health"] != "healthy":
                pass
        assert found == model.to_dict() | {"health": "healthy"}
        assert found["capabilities"] == ["chat"]
        assert found["context_length"] == 2048
        assert found["pricing"] == {"input_tokens": 150}
        assert found["fallbacks"] == []
        with pytest.raises(NotFoundError) as raised:
            await client.models.retrieve("acme/other")
        assert raised.value.body == {
            "message": "The model 'acme/other' does not exist or you do not have access to it.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }


async def test_a_key_sees_the_models_that_it_may_use(start: Start, signer: Signer) -> None:
    async with start({"one": NOWHERE}) as server:
        url = f"http://127.0.0.1:{server.http_port}"
        allowed = openai_client(url, replace(signer, facts={"models": "acme/llama,other"}))
        assert [model.id for model in (await allowed.models.list()).data] == ["acme/llama"]
        assert (await allowed.models.retrieve("acme/llama")).id == "acme/llama"
        for scope in ("other", "acme", "-"):
            denied = openai_client(url, replace(signer, facts={"models": scope}))
            assert (await denied.models.list()).data == []
            with pytest.raises(NotFoundError) as raised:
                await denied.models.retrieve("acme/llama")
            assert raised.value.code == "model_not_found"


async def test_what_callers_tell_over_nats_makes_a_deployment_unhealthy_though_it_answers_probes(
    start: Start, nats_client: Client
) -> None:
    fact = UpstreamsObserved(
        observer="chat-1",
        upstreams=[
            UpstreamObservation(deployment_id="one", breaker=BREAKER_STATE_OPEN, ended=9, failed=7),
        ],
    )
    changes = await nats_client.subscribe("dozen.models.v1.DeploymentHealthChanged")
    async with serve(healthy) as url, start({"one": url}, probe_interval=0.05):
        assert (await heard(changes, DeploymentHealthChanged)).health == models_pb2.HEALTH_HEALTHY

        async def told() -> int:
            await nats_client.publish(f"facts.{fact.DESCRIPTOR.full_name}", fact.SerializeToString())
            return changes.pending_msgs

        await eventually(told)  # again and again: the service may not listen yet
        found = await heard(changes, DeploymentHealthChanged)
        assert (found.health, found.reason) == (models_pb2.HEALTH_UNHEALTHY, "7 of 9 requests failed")


async def test_the_catalogue_is_announced_at_every_start(start: Start, nats_client: Client) -> None:
    models = await nats_client.subscribe("dozen.models.v1.ModelRegistered")
    prices = await nats_client.subscribe("dozen.models.v1.PriceChanged")
    ids = set()
    for _ in range(2):
        async with start({"one": NOWHERE}):
            assert (await heard(models, ModelRegistered)).model.deployments[0].id == "one"
            ids.add((await heard(prices, PriceChanged)).price.id)
    assert len(ids) == 1, "a price that did not change keeps its id"


async def test_a_death_is_announced_within_five_seconds_though_another_one_hangs(
    start: Start, nats_client: Client
) -> None:
    changes = await nats_client.subscribe("dozen.models.v1.DeploymentHealthChanged")
    async with AsyncExitStack() as living, serve(hanging) as stuck:
        url = await living.enter_async_context(serve(healthy))
        async with start({"stuck": stuck, "victim": url}):
            alive = await heard(
                changes, DeploymentHealthChanged, lambda event: event.deployment_id == "victim"
            )
            assert alive.health == models_pb2.HEALTH_HEALTHY
            await living.aclose()
            dead = await heard(
                changes, DeploymentHealthChanged, lambda event: event.deployment_id == "victim"
            )
    assert (dead.model_id, dead.health) == ("acme/llama", models_pb2.HEALTH_UNHEALTHY)
    assert dead.reason == "connection refused"
    assert dead.observed_at.ToNanoseconds() > alive.observed_at.ToNanoseconds()


async def test_one_that_hangs_delays_no_other(start: Start, nats_client: Client) -> None:
    changes = await nats_client.subscribe("dozen.models.v1.DeploymentHealthChanged")
    asked = asyncio.Event()

    async def hang(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            asked.set()
            await asyncio.Event().wait()

    async with (
        serve(hang) as stuck,
        serve(healthy) as url,
        start({"stuck": stuck, "well": url}, probe_interval=600),
    ):
        await asyncio.wait_for(asked.wait(), 5)
        assert (await heard(changes, DeploymentHealthChanged)).deployment_id == "well"


async def test_the_registry_is_read_over_grpc(
    start: Start, stub: Callable[[Serving], "ModelsServiceAsyncStub"]
) -> None:
    async with start({"one": NOWHERE}) as server:
        registry = stub(server)
        listed = await registry.ListModels(ListModelsRequest(), timeout=5)
        found = await registry.GetModel(GetModelRequest(model_id="acme/llama"), timeout=5)
        with pytest.raises(RemoteError) as raised, remote_errors():
            await registry.GetModel(GetModelRequest(model_id="acme"), timeout=5)
    assert list(listed.models) == [found.model]
    assert dict(found.price.nano_credits) == {"input_tokens": 150}
    assert raised.value.code == "model_not_found"


async def test_health_is_watched_until_the_service_stops(
    start: Start, stub: Callable[[Serving], "ModelsServiceAsyncStub"], database: Database
) -> None:
    async with asyncio.timeout(20), serve(healthy) as url:
        async with start({"one": url}, probe_interval=600, shutdown_seconds=60) as server:
            watch = aiter(stub(server).WatchHealth(WatchHealthRequest()))
            while (seen := await anext(watch)).health != models_pb2.HEALTH_HEALTHY:
                assert seen.health == models_pb2.HEALTH_UNSPECIFIED
            assert (seen.deployment_id, seen.reason) == ("one", "answered 200")
            async with ModelsRepository(database).transaction() as another_replica:
                await another_replica.change_health("one", Health.UNHEALTHY, "no answer within 2 s")
                await another_replica.notify(DEPLOYMENTS_CHANNEL, "one")
            changed = await anext(watch)
            assert (changed.health, changed.reason) == (models_pb2.HEALTH_UNHEALTHY, "no answer within 2 s")
            assert changed.observed_at.ToNanoseconds() > seen.observed_at.ToNanoseconds()
        assert [_ async for _ in watch] == [], "the stream ends in good order"


async def test_health_is_watched_again_after_the_database_was_lost(
    start: Start, stub: Callable[[Serving], "ModelsServiceAsyncStub"], database: Database
) -> None:
    async with asyncio.timeout(20), AsyncExitStack() as living:
        url = await living.enter_async_context(serve(healthy))
        async with start({"one": url}, probe_interval=0.5) as server:
            watch = aiter(stub(server).WatchHealth(WatchHealthRequest()))
            while (await anext(watch)).health != models_pb2.HEALTH_HEALTHY:
                pass
            await database.pool.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
            await living.aclose()
            assert (await anext(watch)).health == models_pb2.HEALTH_UNHEALTHY


async def test_a_seed_with_a_fault_keeps_the_service_from_starting(start: Start) -> None:
    with pytest.raises(InvalidSeed, match=r"models\[acme/llama\]\.deployments\[a b\]\.id"):
        async with start({"a b": NOWHERE}):
            pass
