"""The whole service: streams over HTTP, the real database and NATS."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc.aio
import httpx
import pytest
from nats.aio.client import Client

from dozen.credits.v1.credits_events_pb2 import BalanceLow
from dozen.credits.v1.credits_pb2 import Balance
from dozen.events.v1.events_pb2 import PublicEvent
from dozen.events.v1.events_service_pb2 import PublishRequest, ReplayRequest
from dozen.events.v1.events_service_pb2_grpc import EventsServiceStub
from dozen.jobs.v1.jobs_events_pb2 import TaskFinished
from dozen.jobs.v1.jobs_pb2 import TaskState
from dozen_chassis.events import Envelope
from dozen_chassis.grpc import RemoteError, open_channel, remote_errors
from dozen_chassis.run import serving
from dozen_chassis.signing import caller_token
from dozen_events.app import create_app
from dozen_events.settings import Settings
from dozen_testing.http import Signer

pytestmark = pytest.mark.integration

Event = dict[str, Any]


@dataclass
class Stage:
    """The service and its clients."""

    client: httpx.AsyncClient
    signer: Signer
    channel: grpc.aio.Channel

    async def publish(self, number: int, account: str = "acme") -> None:
        event = PublicEvent(
            id=f"evt_{number}", account_id=account, type="test.happened", data=b'{"n": %d}' % number
        )
        await EventsServiceStub(self.channel).Publish(PublishRequest(event=event))

    async def list(self, **query: Any) -> httpx.Response:
        headers = self.signer.headers("GET /v1/events")
        return await self.client.get("/v1/events", params=query, headers=headers)

    @asynccontextmanager
    async def stream(
        self, headers: dict[str, str] | None = None, **query: Any
    ) -> AsyncIterator[AsyncIterator[Event]]:
        """Open a stream; it is open when this returns."""
        signed = self.signer.headers("GET /v1/events") | {"accept": "text/event-stream"} | (headers or {})
        async with (
            asyncio.timeout(20),
            self.client.stream("GET", "/v1/events", params=query, headers=signed) as answer,
        ):
            assert answer.status_code == 200, await answer.aread()
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = answer.aiter_lines()
            assert await anext(lines) == ": ping"
            yield events(lines)


async def events(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    """Read a stream as the standard has it."""
    fields: dict[str, str] = {}
    async for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif not line and fields:
            event = json.loads(fields["data"])
            assert fields["event"] == event["type"]
            yield {"sequence": fields["id"], **event}
            fields = {}


async def take(stream: AsyncIterator[Event], count: int) -> list[Event]:
    return [await anext(stream) for _ in range(count)]


def numbers(events: list[Event]) -> list[int]:
    return [event["data"]["n"] for event in events]


@pytest.fixture
async def serve(base_settings: dict[str, Any], signer: Signer) -> Any:
    @asynccontextmanager
    async def serve(**settings: Any) -> AsyncIterator[Stage]:
        settings = {**base_settings, **settings}
        async with (
            serving("events", create_app, Settings(**settings)) as server,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.http_port}", timeout=20) as client,
            open_channel(
                f"127.0.0.1:{server.grpc_port}", caller_token(bytes.fromhex(settings["grpc_key"]), "jobs")
            ) as channel,
        ):
            yield Stage(client, signer, channel)

    return serve


async def test_a_finished_job_is_told_on_a_stream_and_in_the_list(serve: Any, nats_client: Client) -> None:
    jetstream = nats_client.jetstream()
    await jetstream.add_stream(name="JOBS", subjects=["dozen.jobs.v1.>"])
    finished = Envelope.seal(
        TaskFinished(
            task_id="job_1",
            account_id="acme",
            type="chat.completions",
            state=TaskState.TASK_STATE_SUCCEEDED,
        )
    )
    async with serve() as stage, stage.stream() as stream:
        await jetstream.publish(finished.subject, finished.payload, headers=dict(finished.headers))
        event = await anext(stream)
        assert (event["object"], event["type"]) == ("event", "job.completed")
        assert event["data"]["id"] == "job_1"
        listed = (await stage.list()).json()
        sequence = event.pop("sequence")
        assert listed == {
            "object": "list",
            "data": [event],
            "first_id": event["id"],
            "last_id": event["id"],
            "has_more": False,
        }
        assert int(sequence) > 0


async def test_credits_that_run_low_are_told_on_a_stream(serve: Any, nats_client: Client) -> None:
    jetstream = nats_client.jetstream()
    await jetstream.add_stream(name="CREDITS", subjects=["dozen.credits.v1.>"])
    balance = Balance(account_id="acme", available_nano_credits=4, leased_nano_credits=2, version=3)
    low = Envelope.seal(BalanceLow(balance=balance, limit_nano_credits=10))
    async with serve() as stage, stage.stream() as stream:
        await jetstream.publish(low.subject, low.payload, headers=dict(low.headers))
        event = await anext(stream)
        assert (event["type"], event["data"]["available_nano_credits"]) == ("credits.low", 6)


async def test_a_stream_that_is_cut_goes_on_where_it_was(serve: Any) -> None:
    async with serve() as stage:
        async with stage.stream() as stream:
            for number in range(3):
                await stage.publish(number)
            seen = await take(stream, 2)
        await stage.publish(3)
        async with stage.stream({"last-event-id": seen[-1]["sequence"]}) as stream:
            seen += await take(stream, 2)
            await stage.publish(4)
            seen += await take(stream, 1)
        assert numbers(seen) == [0, 1, 2, 3, 4]
        async with stage.stream(after="evt_2") as stream:
            assert numbers(await take(stream, 2)) == [3, 4]
        async with stage.stream(after="0", stream="true", headers={"accept": "*/*"}) as stream:
            assert numbers(await take(stream, 5)) == [0, 1, 2, 3, 4]


async def test_appends_side_by_side_reach_a_stream_that_is_cut_all_the_time(serve: Any) -> None:
    count = 200

    async def publish(stage: Stage, worker: int) -> None:
        for number in range(worker, count, 8):
            await stage.publish(number)

    async def read(stage: Stage) -> list[Event]:
        seen: list[Event] = []
        while len(seen) < count:
            async with stage.stream({"last-event-id": seen[-1]["sequence"] if seen else "0"}) as stream:
                seen += await take(stream, min(37, count - len(seen)))
        return seen

    async with serve() as stage:
        reading = [asyncio.create_task(read(stage)) for _ in range(2)]
        await asyncio.gather(*(publish(stage, worker) for worker in range(8)))
        for seen in await asyncio.gather(*reading):
            assert sorted(numbers(seen)) == list(range(count))
            sequences = [int(event["sequence"]) for event in seen]
            assert sequences == sorted(sequences)


async def test_pages_are_cut_by_limit_order_and_type(serve: Any) -> None:
    async with serve() as stage:
        for number in range(3):
            await stage.publish(number)
        await stage.publish(9, "other")
        page = (await stage.list(limit=2)).json()
        assert (numbers(page["data"]), page["has_more"]) == ([2, 1], True)
        page = (await stage.list(limit=2, after=page["last_id"])).json()
        assert (numbers(page["data"]), page["has_more"]) == ([0], False)
        assert numbers((await stage.list(order="asc", after="evt_0")).json()["data"]) == [1, 2]
        assert (await stage.list(type="job.failed")).json()["data"] == []
        refusals: list[tuple[dict[str, Any], int, str]] = [
            ({"after": "evt_9"}, 404, "event_not_found"),
            ({"limit": 101}, 400, "invalid_request"),
        ]
        for query, status, code in refusals:
            refused = await stage.list(**query)
            assert (refused.status_code, refused.json()["error"]["code"]) == (status, code)


async def test_one_stream_too_many_is_refused_until_another_is_closed(serve: Any) -> None:
    async with serve(max_account_streams=1) as stage:
        async with stage.stream():
            refused = await stage.list(stream="true")
            assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_streams")
        async with asyncio.timeout(10):
            while True:
                try:
                    async with stage.stream():
                        break
                except AssertionError:  # the service has not noticed yet that the first one is closed
                    await asyncio.sleep(0)


async def test_open_streams_end_when_the_service_stops(serve: Any) -> None:
    opened, ended = asyncio.Event(), asyncio.Event()

    async def read(stage: Stage) -> list[Event]:
        async with stage.stream() as stream:
            opened.set()
            rest = [event async for event in stream]
        ended.set()
        return rest

    async with httpx.AsyncClient(timeout=20) as outliving, serve() as stage:
        outliving.base_url = stage.client.base_url
        reading = asyncio.create_task(read(Stage(outliving, stage.signer, stage.channel)))
        await opened.wait()
        assert not ended.is_set()
    assert await reading == []


async def test_services_publish_once_and_replay(serve: Any) -> None:
    async with serve() as stage:
        stub = EventsServiceStub(stage.channel)
        await stage.publish(0)
        await stage.publish(1)
        await stage.publish(1)
        replayed = [answer.event async for answer in stub.Replay(ReplayRequest(account_id="acme"))]
        assert [event.id for event in replayed] == ["evt_0", "evt_1"]
        rest = ReplayRequest(account_id="acme", after_sequence=replayed[0].sequence)
        assert [answer.event async for answer in stub.Replay(rest)] == replayed[1:]
        assert json.loads(replayed[0].data) == {"n": 0}
        for data in (b"", b"[]", b'{"a": NaN}', b'{"a": "\\u0000"}', b"\xff"):
            event = PublicEvent(id="evt_2", account_id="acme", type="test.happened", data=data)
            with pytest.raises(RemoteError) as refused, remote_errors():
                await stub.Publish(PublishRequest(event=event))
            assert refused.value.code == "invalid_event"
