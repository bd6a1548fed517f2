"""What is told of the upstreams, once a second."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from google.protobuf.message import Message
from prometheus_client import REGISTRY
from starlette.types import Receive, Scope, Send

from dozen.models.v1.models_events_pb2 import (
    BREAKER_STATE_CLOSED,
    BREAKER_STATE_OPEN,
    UpstreamObservation,
    UpstreamsObserved,
)
from dozen_inference.http1 import HttpClient
from dozen_inference.observations import Observer
from dozen_inference.places import Deployment, Places
from dozen_testing.http import serve

METRICS = b"vllm:num_requests_running 3\nvllm:num_requests_waiting 2\nvllm:kv_cache_usage_perc 0.5\n"


@dataclass
class Sidecar:
    status: int = 200
    metrics: bytes = METRICS
    looked: int = 0
    silent: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (scope["method"], scope["path"]) == ("GET", "/metrics")
        self.looked += 1
        if self.silent is not None:
            await self.silent.wait()
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": self.metrics})


@dataclass
class Stage:
    sidecar: Sidecar
    places: Places
    told: list[UpstreamsObserved] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.observer = Observer("chat", self.places, self._tell)

    async def _tell(self, fact: Message) -> None:
        assert isinstance(fact, UpstreamsObserved)
        self.told.append(fact)

    async def observe(self) -> dict[str, UpstreamObservation]:
        await self.observer.observe()
        return {one.deployment_id: one for one in self.told[-1].upstreams}


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    sidecar = Sidecar()
    async with serve(sidecar) as url, HttpClient(connect_seconds=1) as client:
        places = Places(client, url, frozenset({"own"}), most_requests=10, idle_seconds=1)
        yield Stage(sidecar, places)


def breaker_gauge(deployment: str) -> float | None:
    return REGISTRY.get_sample_value("dozen_inference_breaker", {"deployment": deployment})


async def test_what_was_seen_since_the_last_time_is_told(stage: Stage) -> None:
    place = stage.places.place("own")
    stage.places.place("")  # of a request that named none
    place.bulkhead.enter()
    place.observe_first_byte(0.25)
    place.ended, place.failed = 7, 2
    assert await stage.observe() == {
        "own": UpstreamObservation(
            deployment_id="own",
            requests=1,
            running=3,
            waiting=2,
            kv_cache_usage=0.5,
            first_byte_seconds=0.25,
            ended=7,
            failed=2,
            breaker=BREAKER_STATE_CLOSED,
        )
    }
    for _ in range(5):
        place.breaker.leave(place.breaker.enter(), True)
    seen = (await stage.observe())["own"]
    assert (seen.ended, seen.failed, seen.breaker) == (0, 0, BREAKER_STATE_OPEN)
    assert breaker_gauge("own") == 2


async def test_each_process_has_a_name_of_its_own(stage: Stage) -> None:
    await stage.observe()
    await Observer("chat", stage.places, stage._tell).observe()
    first, second = (fact.observer for fact in stage.told)
    assert first.startswith("chat-")
    assert first != second


async def test_a_server_that_does_not_tell_is_left_alone_for_a_while(stage: Stage) -> None:
    stage.places.place("own")
    stage.sidecar.status = 404
    for _ in range(3):
        seen = (await stage.observe())["own"]
        assert not seen.HasField("running")
        assert not seen.HasField("waiting")
        assert not seen.HasField("kv_cache_usage")
    assert stage.sidecar.looked == 1


async def test_a_server_that_is_too_busy_to_tell_holds_nothing_up_and_is_asked_again(stage: Stage) -> None:
    stage.places.place("own")
    stage.sidecar.silent = asyncio.Event()
    async with asyncio.timeout(2):
        assert not (await stage.observe())["own"].HasField("running")
    stage.sidecar.silent.set()
    assert (await stage.observe())["own"].running == 3


async def test_what_has_left_the_catalogue_is_not_told_of(stage: Stage) -> None:
    gone = Deployment("gone", "small", "http://chat:8080", url="http://127.0.0.1:9")
    stage.places.learn({"gone": gone})
    stage.places.place("gone")
    assert set(await stage.observe()) == {"gone"}
    assert breaker_gauge("gone") == 0
    stage.places.learn({})
    assert await stage.observe() == {}
    assert breaker_gauge("gone") is None
