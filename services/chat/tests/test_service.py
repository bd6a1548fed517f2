"""Use cases of the chat service, on an upstream that says what it is told to."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.jobs.v1.jobs_events_pb2 import TaskReported, TaskRequested
from dozen.jobs.v1.jobs_pb2 import TaskState
from dozen_chassis.admission import Admission
from dozen_chassis.errors import InvalidRequest, ServiceError
from dozen_chassis.events import Delivery
from dozen_chat.service.completions import OPERATION, ChatService
from dozen_chat.service.log import Entry, write
from dozen_chat.service.tasks import ChatWorker
from dozen_inference.cache import ResponseCache
from dozen_inference.completions import Completions
from dozen_inference.filter import ContentFilter
from dozen_inference.generation import Generator
from dozen_inference.upstream import (
    Upstream,
    UpstreamAnswer,
    UpstreamFailed,
    UpstreamRefused,
    UpstreamTimeout,
)
from dozen_testing.http import Signer
from dozen_testing.inference import AnswersInMemory, OneUpstream, WordModerator

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ANSWER = b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":5,"completion_tokens":2}}'
STREAM = [
    b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}]}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2}}\n\n',
    b"data: [DONE]\n\n",
]
USED = {"input_tokens": 5, "output_tokens": 2}
HARMFUL = "harm"


class FakeAnswer(UpstreamAnswer):
    """An answer that is there already."""

    def __init__(self, parts: list[bytes]) -> None:
        self.content_type = "text/event-stream" if len(parts) > 1 else "application/json"
        self._parts = parts

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for part in self._parts:
            yield part


@dataclass
class FakeUpstream(Upstream):
    """Answers each request alike, or fails at it; notes what it was asked."""

    parts: list[bytes] = field(default_factory=lambda: [ANSWER])
    error: ServiceError | None = None
    hangs: bool = False
    hanging: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[tuple[Any, float]] = field(default_factory=list)

    @asynccontextmanager
    async def post(
        self, path: str, body: bytes, headers: Any, *, first_byte_seconds: float
    ) -> AsyncIterator[UpstreamAnswer]:
        self.asked.append((json.loads(body), first_byte_seconds))
        if self.error is not None:
            raise self.error
        if self.hangs:
            self.hanging.set()
            await asyncio.Event().wait()
        yield FakeAnswer(self.parts)


@dataclass
class FakeLog:
    """Writes each entry at once."""

    requests: Any
    writes: int = 0

    async def put(self, entry: Entry) -> None:
        self.writes += 1
        await write(self.requests, [entry], self.requests.outcomes.append)


@dataclass
class Stage:
    """The service with everything around it."""

    upstream: FakeUpstream
    requests: Any
    chat: ChatService
    worker: ChatWorker
    signer: Signer

    def task(self, **fields: Any) -> TaskRequested:
        requested = TaskRequested()
        requested.task.id = "job_1"
        requested.task.type = fields.pop("type", "chat.completions")
        requested.task.max_retries = 2
        requested.task.timeout_seconds = 20
        requested.task.parameters = json.dumps({**BODY, **fields}).encode()
        requested.admission.headers.update(self.signer.headers(OPERATION, request_id="req_9"))
        return requested

    @property
    def reports(self) -> list[tuple[str, int]]:
        return [(TaskState.Name(one.state), one.attempt) for one in self.reported]

    @property
    def reported(self) -> list[TaskReported]:
        return [event for event in self.requests.events if isinstance(event, TaskReported)]

    @property
    def used(self) -> list[tuple[str, dict[str, int]]]:
        events = [event for event in self.requests.events if isinstance(event, UsageReported)]
        return [(one.request_id, dict(one.quantities)) for event in events for one in event.records]


@pytest.fixture
def stage(fake_requests: Any, signer: Signer) -> Stage:
    upstream = FakeUpstream()
    log = FakeLog(fake_requests)
    limits = {"first_byte_seconds": 10.0, "answer_seconds": 60.0}
    generator = Generator(OneUpstream(upstream), "/v1/chat/completions", "chat", most_requests=1, **limits)
    content_filter = ContentFilter(WordModerator({HARMFUL: "violence"}))
    completions = Completions(
        generator,
        ResponseCache(AnswersInMemory(), lifetime=timedelta(hours=1)),
        content_filter,
        "messages",
        most_choices=1,
    )
    chat = ChatService(completions, fake_requests, log)
    worker = ChatWorker(
        generator, content_filter, fake_requests, log, admission_key=signer.key, most_choices=1
    )
    return Stage(upstream, fake_requests, chat, worker, signer)


def delivery(attempt: int = 1) -> Delivery:
    return Delivery("delivery-1", attempt, datetime.now(UTC))


async def test_what_came_of_a_request_is_logged(stage: Stage, admission: Admission) -> None:
    answer = stage.chat.complete(admission, json.dumps(BODY).encode())
    assert [chunk async for chunk in answer.chunks] == [ANSWER]
    (outcome,) = stage.requests.outcomes
    assert (outcome.admission, outcome.quantities, outcome.ending) == (admission, USED, "stop")
    assert stage.used == [("req_1", USED)]


async def test_an_answer_is_kept_to_the_tokens_that_are_held_for_it(
    stage: Stage, admission: Admission
) -> None:
    admission = replace(admission, facts={**admission.facts, "max-tokens": "1"})
    answer = stage.chat.complete(admission, json.dumps({**BODY, "max_tokens": 9}).encode())
    async for _ in answer.chunks:
        pass
    ((asked, _),) = stage.upstream.asked
    assert asked == {**BODY, "max_tokens": 1}
    assert stage.used == [("req_1", {**USED, "output_tokens": 1})]  # though the server wrote two


async def test_a_stream_is_logged_before_its_end(stage: Stage, admission: Admission) -> None:
    stage.upstream.parts = STREAM
    answer = stage.chat.complete(admission, json.dumps({**BODY, "stream": True}).encode())
    logged = [(chunk, len(stage.requests.outcomes)) async for chunk in answer.chunks]
    assert logged == [(STREAM[0], 0), (STREAM[2], 1)]


async def test_a_wrong_request_is_refused_at_once(stage: Stage, admission: Admission) -> None:
    with pytest.raises(InvalidRequest):
        stage.chat.complete(admission, b'{"model":"m"}')


async def test_old_entries_are_forgotten(stage: Stage, admission: Admission) -> None:
    answer = stage.chat.complete(admission, json.dumps(BODY).encode())
    async for _ in answer.chunks:
        pass
    await stage.chat.forget(timedelta(hours=1))
    assert stage.requests.outcomes
    await stage.chat.forget(timedelta())
    assert not stage.requests.outcomes


async def test_a_task_is_done_and_charged_under_the_id_of_its_admission(stage: Stage) -> None:
    await stage.worker.work(stage.task(stream=True), delivery())
    assert stage.reports == [("TASK_STATE_RUNNING", 1), ("TASK_STATE_SUCCEEDED", 1)]
    assert stage.reported[1].result == ANSWER
    assert stage.reported[1].task_id == "job_1"
    (outcome,) = stage.requests.outcomes
    assert (outcome.admission.request_id, outcome.quantities) == ("req_9", USED)
    assert stage.upstream.asked == [(BODY, 20.0)]  # whole, and within the task's time
    assert stage.used == [("req_9", USED)]


async def test_a_task_is_kept_to_the_tokens_that_are_held_for_it(stage: Stage) -> None:
    stage.signer = replace(stage.signer, facts={**stage.signer.facts, "max-tokens": "5"})
    await stage.worker.work(stage.task(), delivery())
    assert stage.upstream.asked == [({**BODY, "max_completion_tokens": 5}, 20.0)]


async def test_a_task_that_is_delivered_again_is_not_done_again(stage: Stage) -> None:
    await stage.worker.work(stage.task(), delivery())
    await stage.worker.work(stage.task(), delivery(2))
    assert len(stage.upstream.asked) == 1
    assert len(stage.reported) == 2


@pytest.mark.parametrize("error", [UpstreamFailed(), UpstreamTimeout()])
async def test_a_task_is_tried_again_until_its_retries_are_used_up(stage: Stage, error: ServiceError) -> None:
    stage.upstream.error = error
    for attempt in (1, 2):
        with pytest.raises(type(error)):
            await stage.worker.work(stage.task(), delivery(attempt))
    assert stage.used == []  # what is held for it is held on
    await stage.worker.work(stage.task(), delivery(3))
    assert stage.used == [("req_9", {})]
    assert stage.reports == [
        ("TASK_STATE_RUNNING", 1),
        ("TASK_STATE_RUNNING", 2),
        ("TASK_STATE_RUNNING", 3),
        ("TASK_STATE_FAILED", 3),
    ]
    failure = stage.reported[-1].error
    assert (failure.type, failure.code, failure.message) == ("server_error", error.code, error.message)
    assert [outcome.quantities for outcome in stage.requests.outcomes] == [{}] * 3


async def test_a_task_that_upstream_refuses_fails_at_once(stage: Stage) -> None:
    stage.upstream.error = UpstreamRefused(400, "too long", None, "context_length_exceeded")
    await stage.worker.work(stage.task(), delivery())
    assert stage.reports == [("TASK_STATE_RUNNING", 1), ("TASK_STATE_FAILED", 1)]
    assert stage.reported[-1].error.code == "context_length_exceeded"
    assert stage.used == [("req_9", {})]


async def test_a_task_that_can_never_be_done_is_not_begun(stage: Stage) -> None:
    foreign = stage.task()
    foreign.admission.headers["x-dozen-account"] = "other"
    for task, code in (
        (stage.task(type="chat.songs"), "unknown_task_type"),
        (stage.task(messages=5), "invalid_request"),
        (foreign, "not_admitted"),
    ):
        stage.requests.handled.clear()
        await stage.worker.work(task, delivery())
        report = stage.reported[-1]
        assert (report.state, report.error.code) == (TaskState.TASK_STATE_FAILED, code)
    assert len(stage.reported) == 3
    assert stage.used == [("req_9", {})] * 2  # of that which is not admitted, nothing is known
    assert not stage.upstream.asked


async def test_a_task_without_a_price_that_is_refused_is_not_reported_to_credits(stage: Stage) -> None:
    stage.signer = replace(stage.signer, facts={"model": "m"})
    await stage.worker.work(stage.task(messages=5), delivery())
    assert stage.reports == [("TASK_STATE_FAILED", 1)]
    assert stage.used == []


async def test_a_task_whose_prompt_is_blocked_fails_and_costs_nothing(stage: Stage) -> None:
    stage.signer = replace(stage.signer, facts={**stage.signer.facts, "filter": "on"})
    await stage.worker.work(stage.task(messages=[{"role": "user", "content": HARMFUL}]), delivery())
    assert stage.reports == [("TASK_STATE_RUNNING", 1), ("TASK_STATE_FAILED", 1)]
    assert stage.reported[-1].error.code == "content_filter"
    assert not stage.upstream.asked
    assert stage.used == [("req_9", {})]


async def test_a_task_whose_answer_is_blocked_gives_what_a_request_does(stage: Stage) -> None:
    stage.signer = replace(stage.signer, facts={**stage.signer.facts, "filter": "on"})
    answer = json.loads(ANSWER)
    answer["choices"][0]["message"] = {"role": "assistant", "content": HARMFUL}
    stage.upstream.parts = [json.dumps(answer).encode()]
    await stage.worker.work(stage.task(), delivery())
    assert stage.reports == [("TASK_STATE_RUNNING", 1), ("TASK_STATE_SUCCEEDED", 1)]
    (choice,) = json.loads(stage.reported[-1].result)["choices"]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("content_filter", None)
    assert stage.used == [("req_9", USED)]  # it was generated


async def test_a_task_that_is_interrupted_is_left_for_another_worker(stage: Stage) -> None:
    stage.upstream.hangs = True
    working = asyncio.create_task(stage.worker.work(stage.task(), delivery()))
    async with asyncio.timeout(5):
        await stage.upstream.hanging.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert stage.reports == [("TASK_STATE_RUNNING", 1)]
    assert not await stage.requests.is_handled("delivery-1")
    assert stage.used == []
