"""Use cases of the completion service, on an upstream that repeats what it is asked."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.message import Message

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen_chassis.admission import Admission
from dozen_chassis.errors import InvalidRequest
from dozen_completion.service import CompletionService, Entry, write
from dozen_inference.cache import ResponseCache
from dozen_inference.completions import Completions
from dozen_inference.filter import ContentFilter
from dozen_inference.generation import Generator
from dozen_inference.outcome import Outcome
from dozen_inference.upstream import Upstream, UpstreamAnswer
from dozen_testing.inference import AnswersInMemory, OneUpstream, WordModerator


class Echo(UpstreamAnswer):
    """An answer that gives the prompt back."""

    def __init__(self, prompt: str) -> None:
        self.content_type = "application/json"
        self._prompt = prompt

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        usage = {"prompt_tokens": 5, "completion_tokens": 2}
        yield json.dumps(
            {"choices": [{"text": self._prompt, "finish_reason": "stop"}], "usage": usage}
        ).encode()


class EchoUpstream(Upstream):
    """Repeats prompts."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    @asynccontextmanager
    async def post(
        self, path: str, body: bytes, headers: Any, *, first_byte_seconds: float
    ) -> AsyncIterator[UpstreamAnswer]:
        assert path == "/v1/completions"
        self.asked.append(json.loads(body))
        yield Echo(self.asked[-1]["prompt"])


@dataclass
class FakeRequests:
    """The log in memory."""

    outcomes: list[Outcome] = field(default_factory=list)
    events: list[Message] = field(default_factory=list)

    async def emit(self, event: Message, *, may_merge: bool = False) -> None:
        self.events.append(event)

    async def put(self, entry: Entry) -> None:
        await write(self, [entry], self.outcomes.append)

    async def forget(self, older_than: timedelta, limit: int) -> int:
        forgotten = min(2, len(self.outcomes))  # as if batches were small
        del self.outcomes[:forgotten]
        return forgotten


@pytest.fixture
def requests() -> FakeRequests:
    return FakeRequests()


@pytest.fixture
def upstream() -> EchoUpstream:
    return EchoUpstream()


@pytest.fixture
def completion(requests: FakeRequests, upstream: EchoUpstream) -> CompletionService:
    generator = Generator(
        OneUpstream(upstream),
        "/v1/completions",
        "text_completion",
        most_requests=1,
        first_byte_seconds=5,
        answer_seconds=5,
    )
    completions = Completions(
        generator,
        ResponseCache(AnswersInMemory(), lifetime=timedelta(hours=1)),
        ContentFilter(WordModerator()),
        "prompt",
        most_choices=1,
    )
    return CompletionService(completions, requests, requests)


async def answer(completion: CompletionService, admission: Admission, body: Any) -> bytes:
    return b"".join(
        [chunk async for chunk in completion.complete(admission, json.dumps(body).encode()).chunks]
    )


async def test_what_came_of_a_request_is_logged(
    completion: CompletionService, requests: FakeRequests, admission: Admission
) -> None:
    said = await answer(completion, admission, {"model": "m", "prompt": "Once"})
    assert json.loads(said)["choices"][0]["text"] == "Once"
    (outcome,) = requests.outcomes
    assert outcome.quantities == {"input_tokens": 5, "output_tokens": 2}
    assert (outcome.admission, outcome.ending) == (admission, "stop")
    (event,) = requests.events
    assert isinstance(event, UsageReported)
    assert [dict(record.quantities) for record in event.records] == [outcome.quantities]


async def test_an_answer_is_kept_to_the_tokens_that_are_held_for_it(
    completion: CompletionService, requests: FakeRequests, upstream: EchoUpstream, admission: Admission
) -> None:
    held = replace(admission, facts={**admission.facts, "max-tokens": "1"})
    await answer(completion, held, {"model": "m", "prompt": "Once", "max_completion_tokens": 9})
    assert upstream.asked == [{"model": "m", "prompt": "Once", "max_completion_tokens": 1, "max_tokens": 1}]
    (outcome,) = requests.outcomes
    assert outcome.output_tokens == 1  # though the server wrote two


async def test_more_prompts_than_allowed_are_refused(
    completion: CompletionService, admission: Admission
) -> None:
    with pytest.raises(InvalidRequest, match="2 choices"):
        await answer(completion, admission, {"model": "m", "prompt": ["Once", "Twice"]})


async def test_old_entries_are_forgotten_to_the_last(
    completion: CompletionService, requests: FakeRequests, admission: Admission
) -> None:
    for _ in range(3):
        await answer(completion, admission, {"model": "m", "prompt": "Once"})
    await completion.forget(timedelta(days=1))
    assert not requests.outcomes
