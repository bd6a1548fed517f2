"""Chat completions by whichever deployment can answer: beside the service, in another pod, or a fallback."""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.models.v1.models_events_pb2 import BREAKER_STATE_CLOSED, ModelRegistered, UpstreamsObserved
from dozen.models.v1.models_pb2 import Deployment, Model, Upstream
from dozen_chassis.postgres import Database
from dozen_chassis.run import serving
from dozen_chat.app import create_app
from dozen_chat.service.completions import OPERATION, PATH
from dozen_chat.settings import Settings
from dozen_local.ports import free_port
from dozen_testing.conditions import eventually
from dozen_testing.http import Signer, serve
from dozen_testing.inference import ToldUpstream, told

pytestmark = pytest.mark.integration

USAGE = {"prompt_tokens": 12, "completion_tokens": 3}
WHOLE = json.dumps({"choices": [{"finish_reason": "stop"}], "usage": USAGE}).encode()
EVENTS = [
    b'data: {"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n',
    b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":3}}\n\n',
    b"data: [DONE]\n\n",
]


@dataclass
class Pod:
    """A chat service with the inference server beside it."""

    url: str
    sidecar: ToldUpstream


@dataclass
class Cluster:
    """Two pods of one catalogue, each with a deployment of its own, and a server elsewhere."""

    signer: Signer
    session: aiohttp.ClientSession
    database: Database
    usage: Subscription
    here: Pod
    there: Pod
    elsewhere: ToldUpstream
    taken: list[str] = field(default_factory=list)

    async def ask(self, pod: Pod, facts: dict[str, str], **fields: Any) -> tuple[int, Any, bytes]:
        """Give status, headers and body."""
        signer = replace(self.signer, facts=facts)
        request_id = f"req_{uuid.uuid4().hex}"
        body = {"model": "big", "messages": [{"role": "user", "content": "hi"}], **fields}
        if body.get("stream"):
            body["stream_options"] = {"include_usage": True}
        async with self.session.post(
            pod.url + PATH,
            data=json.dumps(body).encode(),
            headers=signer.headers(OPERATION, request_id=request_id),
        ) as answer:
            self.taken.append(request_id)
            return answer.status, answer.headers, await answer.read()

    async def charged(self) -> tuple[str, str, str, dict[str, int]]:
        """Give the only record of the last request: its deployment, model, price and quantities."""
        (record,) = UsageReported.FromString((await self.usage.next_msg(timeout=10)).data).records
        assert record.request_id == self.taken[-1]
        return record.deployment_id, record.model, record.price_id, dict(record.quantities)


FACTS = {"model": "big", "price": "price-big", "reservation": "lease-1", "deployments": "here"}
CHARGED = {"input_tokens": 12, "output_tokens": 3}


@asynccontextmanager
async def clustered(
    base_settings: dict[str, Any],
    signer: Signer,
    nats_client: Client,
    database: Database,
    own: tuple[str, str],
) -> AsyncIterator[Cluster]:
    jetstream = nats_client.jetstream()
    for domain in ("credits", "models"):
        await jetstream.add_stream(name=domain.upper(), subjects=[f"dozen.{domain}.v1.>"])
    usage = await jetstream.subscribe("dozen.credits.v1.UsageReported")
    pods = []
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        elsewhere = ToldUpstream(PATH, EVENTS, WHOLE)
        elsewhere_url = await stack.enter_async_context(serve(elsewhere))
        for deployment in own:
            sidecar = ToldUpstream(PATH, EVENTS, WHOLE)
            url = await stack.enter_async_context(serve(sidecar))
            settings = Settings(**base_settings, inference_url=url, deployments=frozenset({deployment}))
            server = await stack.enter_async_context(serving("chat", create_app, settings))
            pods.append(Pod(f"http://127.0.0.1:{server.http_port}", sidecar))
        here, there = pods
        cluster = Cluster(signer, session, database, usage, here, there, elsewhere)
        gone = f"http://127.0.0.1:{free_port()}"
        deployments = [
            Deployment(id="here", service="chat", address=cluster.here.url),
            Deployment(id="there", service="chat", address=cluster.there.url),
            Deployment(id="gone", service="chat", address=gone, upstream=Upstream(url=gone)),
        ]
        far = Deployment(
            id="far", service="chat", address=gone, upstream=Upstream(url=elsewhere_url, model="vendor/small")
        )
        models = Model(id="big", deployments=deployments), Model(id="small", deployments=[far])
        for model in models:
            registered = ModelRegistered(model=model)
            await jetstream.publish(
                registered.DESCRIPTOR.full_name,
                registered.SerializeToString(),
                headers={"Nats-Msg-Id": uuid.uuid4().hex},
            )
        for pod in pods:
            await eventually(lambda pod=pod: knows(cluster, pod))  # type: ignore[misc]
        for one in (cluster.here.sidecar, cluster.there.sidecar, elsewhere):
            one.bodies.clear()
        yield cluster


async def knows(cluster: Cluster, pod: Pod) -> bool:
    """Tell whether a pod has the whole catalogue, one deployment of each model."""
    asked = {"model": "big", "peer": "1"}  # for a peer, so that nothing is reported
    await cluster.ask(pod, {**asked, "deployments": "far"})
    if cluster.taken[-1] not in cluster.elsewhere.bodies:
        return False
    status, headers, _ = await cluster.ask(pod, {**asked, "deployments": "gone"})
    return status == 503 and "retry-after" not in headers  # nobody is there, but it is known


@pytest.fixture
def own() -> tuple[str, str]:
    """The deployment in each pod."""
    return "here", "there"


@pytest.fixture
async def cluster(
    base_settings: dict[str, Any],
    signer: Signer,
    nats_client: Client,
    database: Database,
    own: tuple[str, str],
) -> AsyncIterator[Cluster]:
    async with clustered(base_settings, signer, nats_client, database, own) as cluster:
        yield cluster


@pytest.mark.parametrize("stream", [False, True])
async def test_another_pod_answers_and_only_one_of_them_charges(cluster: Cluster, stream: bool) -> None:
    status, headers, body = await cluster.ask(
        cluster.here, {**FACTS, "deployments": "gone,there"}, stream=stream
    )
    assert (status, body) == (200, b"".join(EVENTS) if stream else WHOLE)
    assert (headers["x-dozen-deployment"], headers["x-dozen-attempts"]) == ("there", "2")
    assert set(cluster.there.sidecar.bodies) == {cluster.taken[-1]}
    assert not cluster.here.sidecar.bodies
    assert await cluster.charged() == ("there", "big", "price-big", CHARGED)
    await cluster.ask(cluster.here, FACTS)
    assert (await cluster.charged())[0] == "here"  # so nobody has reported the former once more
    reported = await cluster.database.pool.fetch("select payload from kept_events order by emitted_at")
    records = [one for row in reported for one in UsageReported.FromString(row["payload"]).records]
    assert [record.deployment_id for record in records if record.price_id] == ["there", "here"]
    assert len(records) == 2


@pytest.mark.parametrize("own", [("here", "here")])
async def test_pods_that_take_a_deployment_for_each_others_do_not_send_it_to_and_fro(
    cluster: Cluster,
) -> None:
    status, headers, _ = await cluster.ask(cluster.here, {**FACTS, "deployments": "there"})
    assert (status, headers["x-dozen-deployment"]) == (200, "there")
    assert set(cluster.there.sidecar.bodies) == {cluster.taken[-1]}


async def test_a_fallback_answers_under_its_own_name_and_is_charged_at_its_own_price(
    cluster: Cluster,
) -> None:
    status, headers, _ = await cluster.ask(
        cluster.here, {**FACTS, "deployments": "gone", "fallbacks": "far small price-small"}
    )
    assert (status, headers["x-dozen-model"]) == (200, "small")
    assert cluster.elsewhere.bodies[cluster.taken[-1]]["model"] == "vendor/small"
    assert await cluster.charged() == ("far", "small", "price-small", CHARGED)


async def test_a_client_that_leaves_stops_the_other_pods_server_at_once(cluster: Cluster) -> None:
    facts = {**FACTS, "deployments": "there"}
    asking = asyncio.ensure_future(cluster.ask(cluster.here, facts, stream=True, **told(1, "hang")))
    sidecar = cluster.there.sidecar

    async def begun() -> bool:
        return any(sidecar.said[name] for name in sidecar.bodies)

    await eventually(begun)
    asking.cancel()

    async def left() -> bool:
        return bool(sidecar.left & set(sidecar.bodies))

    await eventually(left, 0.5)
    (request_id,) = sidecar.bodies
    (record,) = UsageReported.FromString((await cluster.usage.next_msg(timeout=10)).data).records
    assert (record.request_id, record.deployment_id, record.quantities["output_tokens"]) == (
        request_id,
        "there",
        1,
    )


async def test_what_a_pod_sees_is_told(cluster: Cluster, nats_client: Client) -> None:
    told_of = await nats_client.subscribe(f"facts.{UpstreamsObserved.DESCRIPTOR.full_name}")
    for _ in range(10):
        assert (await cluster.ask(cluster.here, {**FACTS, "deployments": "gone"}))[0] == 503

    async def not_closed() -> bool:
        fact = UpstreamsObserved.FromString((await told_of.next_msg(timeout=5)).data)
        assert fact.observer.startswith("chat-")
        return any(
            one.deployment_id == "gone" and one.breaker != BREAKER_STATE_CLOSED for one in fact.upstreams
        )

    await eventually(not_closed)
