"""OpenAI's own client against upstreams that fail: their load must not grow by what is tried again."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from openai import APIStatusError, AsyncOpenAI, DefaultAsyncHttpxClient
from starlette.types import Receive, Scope, Send

from dozen_chassis.admission import Admission
from dozen_chassis.hot import HotPaths
from dozen_chassis.http import create_http
from dozen_inference.breakers import Terms
from dozen_inference.deployments import Deployments
from dozen_inference.endpoint import CompletionEndpoint
from dozen_inference.generation import Answer, Generator
from dozen_inference.http1 import HttpClient
from dozen_inference.outcome import Outcome
from dozen_inference.places import Deployment, Places
from dozen_inference.provider_keys import ProviderKeys
from dozen_inference.request import prepare
from dozen_inference.settlement import Settlements, Used
from dozen_testing.conditions import eventually
from dozen_testing.http import Signer, serve

PATH = "/v1/chat/completions"
AT_ONCE = 20
WHOLE = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "big",
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
).encode()


@dataclass
class Flaky:
    """Two servers of a model; of each hundred requests so many get 503."""

    percent: int = 0
    asked: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        self.asked += 1
        # Spread evenly: every twentieth for five percent.
        failing = self.asked * self.percent // 100 > (self.asked - 1) * self.percent // 100
        status, body = (503, b"{}") if failing else (200, WHOLE)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@dataclass
class Storm:
    upstream: Flaky
    client: AsyncOpenAI
    arrived: int = 0
    """Requests that came to us, the clients' retries too."""

    async def ask(self) -> int:
        try:
            await self.client.chat.completions.create(
                model="big", messages=[{"role": "user", "content": "hi"}]
            )
        except APIStatusError as error:
            return error.status_code
        return 200

    async def rage(self, requests: int) -> list[int]:
        """Give the statuses of so many requests, some at once."""
        waiting = iter(range(requests))

        async def work() -> list[int]:
            return [await self.ask() for _ in waiting]

        worked = await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        return [status for statuses in worked for status in statuses]


@pytest.fixture(params=[1, 2], ids=["one deployment", "two deployments"])
async def storm(request: pytest.FixtureRequest, signer: Signer) -> AsyncIterator[Storm]:
    upstream = Flaky()
    names = ["a", "b"][: request.param]
    signer = Signer(signer.key, facts={"model": "big", "price": "price-1", "deployments": ",".join(names)})

    async def settle(_: Outcome) -> None:
        pass

    async def put(_: Used) -> None:
        pass

    async def admit(asking: httpx.Request) -> None:
        asking.headers.update(signer.headers(f"{asking.method} {asking.url.path}"))
        stage.arrived += 1

    async with serve(upstream) as url, HttpClient(connect_seconds=1) as connections:
        # Clients wait as long as a breaker does, so the test lasts no longer than it must.
        terms = Terms(most_cool_down_seconds=1)
        places = Places(
            connections,
            "http://127.0.0.1:9",
            frozenset({"-"}),
            most_requests=100,
            idle_seconds=5,
            terms=terms,
        )
        places.learn({name: Deployment(name, "big", "http://chat:8080", url=url) for name in names})
        deployments = Deployments(places, ProviderKeys(None), lambda passed_on, until: {})
        generator = Generator(
            deployments, PATH, "chat", most_requests=100, first_byte_seconds=5, answer_seconds=5
        )

        def begin(admission: Admission, body: bytes, headers: dict[bytes, bytes]) -> Answer:
            return generator.answer(admission, prepare(body, "messages", most_choices=1), settle)

        endpoint = CompletionEndpoint(begin, Settlements(put, unused=Used))
        app = HotPaths(create_http("test", []), {PATH: endpoint}, admission_key=signer.key)
        async with serve(app) as service:
            # With the retries that it makes where nobody says anything: two.
            client = AsyncOpenAI(
                base_url=f"{service}/v1",
                api_key="-",
                http_client=DefaultAsyncHttpxClient(event_hooks={"request": [admit]}),
            )
            async with client:
                stage = Storm(upstream, client)
                yield stage


async def test_a_twentieth_of_failures_is_made_up_for(storm: Storm) -> None:
    storm.upstream.percent = 5
    statuses = await storm.rage(400)
    assert statuses.count(200) >= 398  # one that is alone may fail three times
    assert 400 < storm.upstream.asked <= 400 * 1.1


async def test_an_outage_is_not_made_worse_and_ends_soon_after_it_is_over(storm: Storm) -> None:
    storm.upstream.percent = 100
    statuses = await storm.rage(80)
    assert 200 not in statuses
    assert storm.upstream.asked <= 80 * 1.1
    assert storm.arrived > 80 * 1.5  # for the clients did try again
    storm.upstream.percent = 0

    async def well() -> Any:
        return await storm.ask() == 200

    await eventually(well, 30)
    storm.upstream.asked = 0
    assert set(await storm.rage(100)) == {200}
    assert storm.upstream.asked == 100


async def test_what_fails_too_seldom_for_a_breaker_is_bounded_by_the_budget(storm: Storm) -> None:
    storm.upstream.percent = 40
    statuses = await storm.rage(300)
    assert statuses.count(200) > 150
    # A tenth of all that arrives, and the ten with which a budget begins.
    assert storm.upstream.asked <= (300 + 10) / 0.9
