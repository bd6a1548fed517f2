"""Answers that are given again: which, to whom, for how long, and what they cost."""

import json
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from dozen_chassis.admission import Admission
from dozen_chassis.errors import InvalidRequest
from dozen_chassis.postgres import Database
from dozen_inference.answers import AnswerRepository
from dozen_inference.cache import MOST_BYTES, ResponseCache, Store, Wish, wish
from dozen_inference.generation import Answer
from dozen_inference.outcome import Outcome
from dozen_inference.request import prepare
from dozen_inference.upstream import UpstreamFailed
from dozen_testing.inference import AnswersInMemory

ASKED = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
WHOLE = b'{"choices":[{"message":{"content":"Hello"},"finish_reason":"stop"}]}'
CUT = WHOLE.replace(b"stop", b"length")
STREAM = [
    b'data: {"choices":[{"delta":{"content":"Hello"},"finish_reason":null}]}\n\n',
    b'data: {"choices":[{"delta":{},"finish_reason": "stop"}]}\n\n',
    b"data: [DONE]\n\n",
]


class Stage:
    """A cache, before upstreams that are counted."""

    def __init__(self, store: Store, admission: Admission) -> None:
        self.cache = ResponseCache(store, lifetime=timedelta(hours=1))
        self.admission = admission
        self.produced = 0
        self.settled: list[Outcome] = []

    async def ask(
        self,
        wanted: Wish = Wish.ON,
        chunks: list[bytes] | None = None,
        *,
        admission: Admission | None = None,
        error: Exception | None = None,
        **fields: Any,
    ) -> tuple[bytes, str | None]:
        """Give the answer, and what its header says."""

        async def produce() -> AsyncGenerator[bytes, None]:
            self.produced += 1
            for chunk in chunks or [WHOLE]:
                yield chunk
            if error is not None:
                raise error

        async def settle(outcome: Outcome) -> None:
            self.settled.append(outcome)

        body = json.dumps({**ASKED, **fields}).encode()
        request = prepare(body, "messages", most_choices=4)
        answer = Answer(request.stream, produce())
        answer = self.cache.answer(admission or self.admission, body, request, wanted, answer, settle)
        said = b"".join([chunk async for chunk in answer.chunks])
        return said, answer.headers.get("x-dozen-cache")


@pytest.fixture
def answers() -> AnswersInMemory:
    return AnswersInMemory()


@pytest.fixture
def stage(answers: AnswersInMemory, admission: Admission) -> Stage:
    return Stage(answers, admission)


async def test_an_answer_is_given_again_and_costs_a_hit(stage: Stage) -> None:
    assert await stage.ask() == (WHOLE, "miss")
    assert not stage.settled  # by the cache
    assert await stage.ask() == (WHOLE, "hit")
    assert stage.produced == 1
    (outcome,) = stage.settled
    assert (outcome.quantities, outcome.ending, outcome.status) == ({"cache_hits": 1}, "cached", 200)
    record = outcome.usage_record()
    assert record is not None
    assert (record.price_id, dict(record.quantities)) == ("price-1", {"cache_hits": 1})
    assert (outcome.input_tokens, outcome.output_tokens) == (0, 0)


async def test_a_stream_is_given_again_as_a_stream(stage: Stage) -> None:
    whole = b"".join(STREAM)
    assert await stage.ask(chunks=STREAM, stream=True) == (whole, "miss")
    assert await stage.ask(chunks=STREAM, stream=True) == (whole, "hit")
    assert await stage.ask() == (WHOLE, "miss")  # which is another answer
    assert [outcome.stream for outcome in stage.settled] == [True]


async def test_only_those_who_want_it_get_it(stage: Stage) -> None:
    assert await stage.ask(Wish.OFF) == (WHOLE, None)
    assert await stage.ask(Wish.ON) == (WHOLE, "miss")
    assert await stage.ask(Wish.OFF) == (WHOLE, None)
    assert await stage.ask(Wish.REFRESH, [WHOLE + b" "]) == (WHOLE + b" ", "miss")
    assert await stage.ask(Wish.ON) == (WHOLE + b" ", "hit")


@pytest.mark.parametrize(
    ("first", "second", "again"),
    [
        ({}, {}, True),
        ({"top_p": 1}, {"top_p": 1, "user": "somebody", "metadata": {"a": "b"}}, True),
        ({}, {"messages": [{"role": "user", "content": "ho"}]}, False),
        ({"max_tokens": 5}, {"max_tokens": 6}, False),
        ({"temperature": 1}, {"temperature": 1}, False),
        ({"temperature": None}, {"temperature": None}, False),
        ({"temperature": 1, "seed": 7}, {"temperature": 1, "seed": 7}, True),
        ({"temperature": 1, "seed": 7}, {"temperature": 1, "seed": 8}, False),
    ],
)
async def test_only_the_same_deterministic_request_has_the_same_answer(
    stage: Stage, first: dict[str, Any], second: dict[str, Any], again: bool
) -> None:
    await stage.ask(**first)
    await stage.ask(**dict(reversed(second.items())))
    assert stage.produced == (1 if again else 2)


async def test_no_account_gets_what_another_has_asked(stage: Stage) -> None:
    await stage.ask()
    await stage.ask(admission=replace(stage.admission, key="key2"))
    assert stage.produced == 1
    await stage.ask(admission=replace(stage.admission, account="other"))
    assert stage.produced == 2
    await stage.ask(admission=replace(stage.admission, operation="POST /v1/responses"))
    assert stage.produced == 3


@pytest.mark.parametrize(
    ("chunks", "stream"),
    [
        (STREAM[:-1], True),
        ([STREAM[0], b'data: {"error":{"message":"boom"}}\n\n'], True),
        ([STREAM[0], STREAM[2]], True),
        ([CUT], False),
        ([b'{"choices":[{"message":{"content":"\\"finish_reason\\":\\"stop\\""}}]}'], False),
        ([WHOLE + b" " * MOST_BYTES], False),
    ],
)
async def test_what_is_not_whole_or_too_large_is_not_kept(
    stage: Stage, chunks: list[bytes], stream: bool
) -> None:
    for _ in range(2):
        assert await stage.ask(chunks=chunks, stream=stream) == (b"".join(chunks), "miss")
    assert stage.produced == 2


async def test_an_answer_that_its_client_has_limited_is_whole(stage: Stage) -> None:
    held = replace(stage.admission, facts={**stage.admission.facts, "max-tokens": "10"})
    for limit, produced in ((11, 1), (11, 2), (10, 3), (10, 3)):
        await stage.ask(chunks=[CUT], admission=held, max_tokens=limit)
        assert stage.produced == produced


async def test_an_answer_that_fails_is_not_kept(stage: Stage) -> None:
    with pytest.raises(UpstreamFailed):
        await stage.ask(error=UpstreamFailed())
    assert (await stage.ask())[1] == "miss"


async def test_the_policy_of_a_model_says_for_how_long(stage: Stage, answers: AnswersInMemory) -> None:
    await stage.ask()
    policy = replace(stage.admission, facts={**stage.admission.facts, "cache": "90"})
    await stage.ask(admission=policy, seed=1)
    assert answers.lifetimes == [timedelta(hours=1), timedelta(seconds=90)]


def test_a_request_says_what_it_wants_or_the_policy_does(admission: Admission) -> None:
    policy = replace(admission, facts={**admission.facts, "cache": "90"})
    assert wish(admission, "") is Wish.OFF
    assert wish(policy, "") is Wish.ON
    assert wish(admission, "on") is Wish.ON
    assert wish(policy, "off") is Wish.OFF
    with pytest.raises(InvalidRequest, match="x-cache"):
        wish(policy, "maybe")


@pytest.fixture
def service_package() -> str:
    return "dozen_completion"


@pytest.mark.integration
async def test_answers_are_kept_in_a_table_until_they_are_too_old_or_too_many(database: Database) -> None:
    repository = AnswerRepository(database)
    for number in range(3):
        await repository.keep(bytes([number]), b"old", timedelta(hours=number + 1))
    await repository.keep(b"\x00", b"new", timedelta(hours=9))
    await repository.keep(b"gone", b"old", timedelta(0))
    assert await repository.find(b"\x00") == b"new"
    assert await repository.find(b"gone") is None
    assert await repository.forget(2, 10) >= 1
    while await repository.forget(2, 10):
        pass
    assert [await repository.find(bytes([number])) for number in range(3)] == [b"new", None, b"old"]
