"""Tasks from the work queue to their reports, over a real NATS and a real database."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from starlette.types import Receive, Scope, Send

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.jobs.v1.jobs_events_pb2 import TaskReported, TaskRequested
from dozen.jobs.v1.jobs_pb2 import TaskState
from dozen_chassis.run import serving
from dozen_chat.app import create_app
from dozen_chat.service.completions import OPERATION
from dozen_chat.settings import Settings
from dozen_testing.http import Signer, serve

pytestmark = pytest.mark.integration

ANSWER = b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2}}'


class FlakyServer:
    """An inference server that fails at its first requests."""

    def __init__(self) -> None:
        self.failures = 0
        self.asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += scope["method"] == "POST"
        status = 500 if self.asked <= self.failures else 200
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": ANSWER})


@pytest.fixture
def inference() -> FlakyServer:
    return FlakyServer()


@pytest.fixture
async def queue(
    base_settings: dict[str, Any], nats_client: Client, inference: FlakyServer
) -> AsyncIterator[JetStreamContext]:
    """The work queue of a running chat service."""
    jetstream = nats_client.jetstream()
    await jetstream.add_stream(name="JOBS", subjects=["dozen.jobs.v1.>"])
    await jetstream.add_stream(name="CREDITS", subjects=["dozen.credits.v1.>"])
    async with (
        serve(inference) as url,
        serving("chat", create_app, Settings(**base_settings, inference_url=url)),
    ):
        yield jetstream


def task(signer: Signer, **fields: Any) -> bytes:
    requested = TaskRequested()
    requested.task.id = "job_1"
    requested.task.type = fields.get("type", "chat.completions")
    requested.task.max_retries = fields.get("max_retries", 1)
    requested.task.parameters = json.dumps({"model": "m", "messages": [{"role": "user"}]}).encode()
    requested.admission.headers.update(signer.headers(OPERATION, request_id="req_9"))
    return requested.SerializeToString()


async def reports(queue: JetStreamContext, count: int) -> list[TaskReported]:
    """Wait for so many reports."""
    subscription = await queue.subscribe("dozen.jobs.v1.TaskReported")
    messages = [await subscription.next_msg(timeout=10) for _ in range(count)]
    return [TaskReported.FromString(message.data) for message in messages]


async def test_a_failing_task_is_delivered_again_and_charged_once(
    queue: JetStreamContext, signer: Signer, inference: FlakyServer
) -> None:
    inference.failures = 1
    subject = "dozen.jobs.v1.TaskRequested.chat.completions.standard"
    await queue.publish(subject, task(signer))
    said = await reports(queue, 3)
    assert [(TaskState.Name(one.state), one.attempt) for one in said] == [
        ("TASK_STATE_RUNNING", 1),
        ("TASK_STATE_RUNNING", 2),
        ("TASK_STATE_SUCCEEDED", 2),
    ]
    assert said[-1].result == ANSWER
    usage = await queue.subscribe("dozen.credits.v1.UsageReported")
    (record,) = UsageReported.FromString((await usage.next_msg(timeout=10)).data).records
    assert record.request_id == "req_9"
    assert dict(record.quantities) == {"input_tokens": 5, "output_tokens": 2}
    assert (await queue.stream_info("CREDITS")).state.messages == 1


async def test_a_task_without_retries_fails_the_first_time(
    queue: JetStreamContext, signer: Signer, inference: FlakyServer
) -> None:
    inference.failures = 1
    await queue.publish("dozen.jobs.v1.TaskRequested.chat.completions.high", task(signer, max_retries=0))
    said = await reports(queue, 2)
    assert [TaskState.Name(one.state) for one in said] == ["TASK_STATE_RUNNING", "TASK_STATE_FAILED"]
    assert said[-1].error.code == "upstream_error"
    assert inference.asked == 1
    usage = await queue.subscribe("dozen.credits.v1.UsageReported")
    (record,) = UsageReported.FromString((await usage.next_msg(timeout=10)).data).records
    assert (record.request_id, dict(record.quantities)) == ("req_9", {})


async def test_work_that_is_not_known_fails(queue: JetStreamContext, signer: Signer) -> None:
    await queue.publish("dozen.jobs.v1.TaskRequested.chat.songs.low", task(signer, type="chat.songs"))
    (said,) = await reports(queue, 1)
    assert said.error.code == "unknown_task_type"
