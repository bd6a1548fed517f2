"""Clients that leave and inference servers that die, at every moment: each completion is settled once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest
from prometheus_client import REGISTRY

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen_chassis.postgres import Database
from dozen_chassis.run import serving
from dozen_chassis.settings import ServiceSettings
from dozen_chat.app import create_app as create_chat
from dozen_chat.settings import Settings as ChatSettings
from dozen_completion.app import create_app as create_completion
from dozen_completion.settings import Settings as CompletionSettings
from dozen_testing.conditions import eventually
from dozen_testing.http import Signer, serve
from dozen_testing.inference import ToldUpstream, told

pytestmark = pytest.mark.integration

USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 10}}
EXACT = {"input_tokens": 2, "cached_input_tokens": 10, "output_tokens": 3}
WHOLE = json.dumps({"choices": [{"finish_reason": "stop"}], "usage": USAGE}).encode()


def event(**data: Any) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def delta(content: str | None, finish: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": content}, "finish_reason": finish}])


def text(content: str, finish: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "text": content, "finish_reason": finish}])


@dataclass(frozen=True)
class Endpoint:
    """An endpoint that passes completions through."""

    service: str
    path: str
    create_app: Any
    settings: Any
    asked: dict[str, Any]
    prompt_guess: int
    """Bytes of the prompt by four."""
    wrong: dict[str, Any]
    events: list[bytes]
    tokens_after: list[int]
    """Events with text among the first so many; with one more comes the usage."""

    @property
    def operation(self) -> str:
        return f"POST {self.path}"

    def generated(self, events: int) -> dict[str, int]:
        """Give what is charged where so many events came; even without one the prompt was read."""
        if events < len(self.tokens_after):
            return {"input_tokens": self.prompt_guess, "output_tokens": self.tokens_after[events]}
        return EXACT

    def failed(self, events: int) -> dict[str, int]:
        """Give what is charged where the server failed after so many events."""
        return self.generated(events) if events else {}


ENDPOINTS = {
    "chat": Endpoint(
        service="chat",
        path="/v1/chat/completions",
        create_app=create_chat,
        settings=ChatSettings,
        asked={"model": "m", "messages": [{"role": "user", "content": "hi"}]},
        prompt_guess=9,
        wrong={"messages": []},
        events=[
            delta(None),
            delta("Grüße"),
            delta(" 🙂"),
            delta("!"),
            delta(None, "stop"),
            event(choices=[], usage=USAGE),
            b"data: [DONE]\n\n",
        ],
        tokens_after=[0, 0, 1, 2, 3, 3],
    ),
    "completion": Endpoint(
        service="completion",
        path="/v1/completions",
        create_app=create_completion,
        settings=CompletionSettings,
        asked={"model": "m", "prompt": "Once upon a time"},
        prompt_guess=5,
        wrong={"prompt": []},
        events=[
            text("Grüße"),
            text(" 🙂"),
            text("!"),
            text("", "stop"),
            event(choices=[], usage=USAGE),
            b"data: [DONE]\n\n",
        ],
        tokens_after=[0, 1, 2, 3, 3],
    ),
}


@pytest.fixture(params=sorted(ENDPOINTS))
def endpoint(request: pytest.FixtureRequest) -> Endpoint:
    return ENDPOINTS[request.param]


@pytest.fixture
def service_package(endpoint: Endpoint) -> str:
    return f"dozen_{endpoint.service}"


def requests_abandoned(path: str) -> float:
    """Count the requests whose clients did not wait for the headers."""
    labels = {"method": "POST", "route": path, "status": "499"}
    return REGISTRY.get_sample_value("dozen_http_requests_total", labels) or 0


@dataclass
class Stage:
    """The service with an inference server that does as it is told, and no NATS to take its events."""

    endpoint: Endpoint
    upstream: ToldUpstream
    settings: ServiceSettings
    signer: Signer
    database: Database
    url: str = ""

    @asynccontextmanager
    async def served(self) -> AsyncIterator[aiohttp.ClientSession]:
        """Serve for the block; afterwards everything has been written that will be."""
        app = self.endpoint.service, self.endpoint.create_app
        async with serving(*app, self.settings) as server, aiohttp.ClientSession() as session:
            self.url = f"http://127.0.0.1:{server.http_port}{self.endpoint.path}"
            yield session

    def request(self, request_id: str, **fields: Any) -> dict[str, Any]:
        """Give a request for aiohttp that asks for a stream with its usage, unless told otherwise."""
        asked = {**self.endpoint.asked, "stream": True, "stream_options": {"include_usage": True}, **fields}
        if not asked["stream"]:
            del asked["stream_options"]
        return {
            "url": self.url,
            "data": json.dumps(asked).encode(),
            "headers": self.admit(deployments=request_id).headers(
                self.endpoint.operation, request_id=request_id
            ),
        }

    def admit(self, **facts: str) -> Signer:
        """Give what signs a request; each has a deployment of its own, so that no breaker opens."""
        return replace(self.signer, facts={**self.signer.facts, **facts})

    async def reported(self) -> dict[str, dict[str, int]]:
        """Give what was reported, by the id of the request; fail where one was reported twice."""
        rows = await self.database.pool.fetch(
            "select payload from outbox where subject = $1", "dozen.credits.v1.UsageReported"
        )
        records = [record for row in rows for record in UsageReported.FromString(row["payload"]).records]
        assert {record.lease_id for record in records} == {"lease-1"}
        found = {record.request_id: dict(record.quantities) for record in records}
        assert len(found) == len(records)
        return found

    async def logged(self) -> dict[str, tuple[str, int]]:
        """Give ending and output tokens of the requests in the log."""
        rows = await self.database.pool.fetch("select request_id, ending, output_tokens from requests")
        assert len({row["request_id"] for row in rows}) == len(rows)
        return {row["request_id"]: (row["ending"], row["output_tokens"]) for row in rows}

    async def has_left(self, request_id: str) -> None:
        """Wait until the inference server is rid of a request."""

        async def left() -> bool:
            return request_id in self.upstream.left

        await eventually(left, 5)


@pytest.fixture
async def stage(
    endpoint: Endpoint, base_settings: dict[str, Any], signer: Signer, database: Database
) -> AsyncIterator[Stage]:
    signer = Signer(signer.key, facts={"model": "m", "price": "price-1", "reservation": "lease-1"})
    upstream = ToldUpstream(endpoint.path, endpoint.events, WHOLE)
    async with serve(upstream) as url:
        kept = {**base_settings, "nats_url": "nats://127.0.0.1:1", "inference_url": url}
        settings = endpoint.settings(**kept, idle_seconds=5, max_requests=50, max_body_bytes=1000)
        yield Stage(endpoint, upstream, settings, signer, database)


async def leave(stage: Stage, session: aiohttp.ClientSession, request_id: str, events: int) -> None:
    """Leave once so many events have come, before the headers where that is none."""
    asking = asyncio.ensure_future(session.post(**stage.request(request_id, **told(events, "hang"))))
    if events:
        answer = await asking
        assert answer.status == 200
        await answer.content.readexactly(len(b"".join(stage.endpoint.events[:events])))
        answer.close()
    else:

        async def arrived() -> bool:
            return request_id in stage.upstream.bodies

        await eventually(arrived)
        asking.cancel()
    await stage.has_left(request_id)


async def test_a_client_may_leave_at_every_event(stage: Stage) -> None:
    moments = {
        f"req_{events}_{copy}": events for events in range(len(stage.endpoint.events)) for copy in range(3)
    }
    async with stage.served() as session:
        await asyncio.gather(*(leave(stage, session, *moment) for moment in moments.items()))
    assert stage.upstream.said == moments
    assert await stage.reported() == {
        name: stage.endpoint.generated(events) for name, events in moments.items()
    }
    assert await stage.logged() == {
        name: ("client_left", stage.endpoint.generated(events)["output_tokens"])
        for name, events in moments.items()
    }


async def test_a_client_may_leave_while_its_answer_is_settled(stage: Stage) -> None:
    async with (
        stage.served() as session,
        stage.database.pool.acquire() as connection,
        connection.transaction(),
    ):
        await connection.execute("lock table outbox")  # so that nothing is settled until the end
        streamed = await session.post(
            **stage.request("req_stream", **told(len(stage.endpoint.events), "hang"))
        )
        await streamed.content.readexactly(len(b"".join(stage.endpoint.events[:-1])))
        whole = asyncio.ensure_future(session.post(**stage.request("req_whole", stream=False)))

        async def settling() -> bool:
            waiting = "select exists (select from pg_locks where not granted)"
            return bool(await stage.database.pool.fetchval(waiting)) and "req_whole" in stage.upstream.said

        await eventually(settling)
        abandoned = requests_abandoned(stage.endpoint.path)
        streamed.close()
        whole.cancel()
        await stage.has_left("req_stream")

        async def noticed() -> bool:
            return requests_abandoned(stage.endpoint.path) > abandoned

        await eventually(noticed)
    assert await stage.reported() == {"req_stream": EXACT, "req_whole": EXACT}
    assert await stage.logged() == {"req_stream": ("stop", 3), "req_whole": ("stop", 3)}


async def test_a_whole_answer_that_nobody_waits_for_costs_its_prompt(stage: Stage) -> None:
    async with stage.served() as session:
        asked = stage.request("req_1", stream=False, **told(0, "hang"))
        asking = asyncio.ensure_future(session.post(**asked))

        async def arrived() -> bool:
            return "req_1" in stage.upstream.bodies

        await eventually(arrived)
        asking.cancel()
        await stage.has_left("req_1")
    assert await stage.reported() == {"req_1": stage.endpoint.generated(0)}


async def test_the_inference_server_may_die_at_every_event(stage: Stage) -> None:
    moments = {f"req_{events}": events for events in range(len(stage.endpoint.events))}
    async with stage.served() as session:
        for request_id, events in moments.items():
            async with session.post(**stage.request(request_id, **told(events, "die"))) as answer:
                said = await answer.read()
            assert answer.status == (200 if events else 502)
            passed = b"".join(stage.endpoint.events[:events])
            assert said.startswith(passed)
            assert b"[DONE]" not in said
            assert (
                json.loads(said[len(passed) :].removeprefix(b"data: "))["error"]["code"] == "upstream_error"
            )
    assert await stage.reported() == {name: stage.endpoint.failed(events) for name, events in moments.items()}


async def test_what_fails_before_anything_is_generated_is_reported_as_nothing(stage: Stage) -> None:
    stage.settings = stage.settings.model_copy(update={"max_requests": 1})
    async with stage.served() as session:

        async def status(request_id: str, method: str = "POST", **changes: Any) -> int:
            asked = {**stage.request(request_id), **changes}
            async with session.request(method, **asked) as answer:
                return answer.status

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield bytes(500)

        assert await status("req_json", data=b"{") == 400
        assert await status("req_n", data=json.dumps({**stage.endpoint.asked, "n": 2}).encode()) == 400
        assert await status("req_declared", data=bytes(1001)) == 413
        assert await status("req_undeclared", data=pieces()) == 413
        headers = stage.signer.headers(f"GET {stage.endpoint.path}", request_id="req_method")
        assert await status("", "GET", data=None, headers=headers) == 404  # the gateway knows better
        headers = stage.signer.headers(
            stage.endpoint.operation.replace("completions", "nothing"), request_id="req_path"
        )
        url = stage.url.replace("completions", "nothing")
        assert await status("", url=url, headers=headers) == 404
        busy = await session.post(**stage.request("req_busy", **told(1, "hang")))
        assert await status("req_over") == 503
        busy.close()
        await stage.has_left("req_busy")
        assert await status("", headers={}) == 401  # not admitted, so that nothing is held
    failed = "json", "n", "declared", "undeclared", "method", "path", "over"
    assert await stage.reported() == {f"req_{name}": {} for name in failed} | {
        "req_busy": stage.endpoint.generated(1)
    }
    assert set(await stage.logged()) == {"req_busy"}


async def test_a_client_may_leave_while_it_sends_its_body(stage: Stage) -> None:
    async with stage.served():
        asked = stage.request("req_1")
        host, _, port = stage.url.removeprefix("http://").removesuffix(stage.endpoint.path).partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        headers = {**asked["headers"], "host": "here", "content-length": str(len(asked["data"]))}
        lines = [
            f"{stage.endpoint.operation} HTTP/1.1",
            *(f"{name}: {value}" for name, value in headers.items()),
            "",
            "",
        ]
        writer.write("\r\n".join(lines).encode() + asked["data"][:10])
        await writer.drain()
        writer.close()
        await writer.wait_closed()

        async def settled() -> bool:
            return bool(await stage.database.pool.fetchval("select exists (select from outbox)"))

        await eventually(settled)
    assert await stage.reported() == {"req_1": {}}


async def test_requests_without_a_price_that_fail_are_not_reported(stage: Stage) -> None:
    stage.signer = Signer(stage.signer.key, facts={"model": "m"})
    async with stage.served() as session:
        answer = await session.post(**stage.request("req_1", **stage.endpoint.wrong))
        assert answer.status == 400
    assert await stage.database.pool.fetchval("select count(*) from outbox") == 0
