"""Completions whose inference server does what none should."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from dozen_chassis.admission import Admission
from dozen_inference.generation import Answer, Generator
from dozen_inference.outcome import Outcome
from dozen_inference.request import prepare
from dozen_inference.upstream import Upstream, UpstreamAnswer
from dozen_testing.inference import OneUpstream

BODY = b'{"model":"m","messages":[{"role":"user"}],"stream":true}'
SAID = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":7}}\n\n'
DONE = b"data: [DONE]\n\n"


class Parts(UpstreamAnswer):
    """An answer that breaks our own code where its parts end."""

    def __init__(self, parts: list[bytes]) -> None:
        self.content_type = "text/event-stream"
        self._parts = parts

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        for part in self._parts:
            yield part
        raise ZeroDivisionError


class Broken(Upstream):
    """Gives such answers."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = parts

    @asynccontextmanager
    async def post(
        self, path: str, body: bytes, headers: Any, *, first_byte_seconds: float
    ) -> AsyncIterator[UpstreamAnswer]:
        yield Parts(self._parts)


def answer(
    parts: list[bytes], admission: Admission, settled: list[Outcome], most_tokens: int | None = None
) -> Answer:
    async def settle(outcome: Outcome) -> None:
        settled.append(outcome)

    limits = {"first_byte_seconds": 5.0, "answer_seconds": 5.0}
    generator = Generator(
        OneUpstream(Broken(parts)), "/v1/chat/completions", "chat", most_requests=1, **limits
    )
    request = prepare(BODY, "messages", most_choices=1, most_tokens=most_tokens)
    return generator.answer(admission, request, settle)


@pytest.mark.parametrize(
    ("parts", "quantities"), [([], {}), ([SAID, SAID], {"input_tokens": 5, "output_tokens": 2})]
)
async def test_a_mistake_of_ours_is_settled_too(
    admission: Admission, parts: list[bytes], quantities: dict[str, int]
) -> None:
    settled: list[Outcome] = []
    given = []

    async def read() -> None:
        given.extend([chunk async for chunk in answer(parts, admission, settled).chunks])

    with pytest.raises(ZeroDivisionError):
        await read()
    (outcome,) = settled
    assert (outcome.quantities, outcome.ending) == (quantities, "internal_error")


@pytest.mark.parametrize(("parts", "estimated"), [([SAID] * 4, True), ([SAID, USAGE], False)])
async def test_no_more_is_charged_than_is_held(
    admission: Admission, parts: list[bytes], estimated: bool
) -> None:
    settled: list[Outcome] = []
    said = [chunk async for chunk in answer([*parts, DONE], admission, settled, most_tokens=3).chunks]
    assert said[-1] == DONE
    (outcome,) = settled
    assert outcome.quantities == {"input_tokens": 5, "output_tokens": 3}
    assert outcome.estimated == estimated


async def test_what_a_free_request_did_not_use_is_not_reported(admission: Admission) -> None:
    settled: list[Outcome] = []
    with pytest.raises(ZeroDivisionError):
        await anext(answer([], admission, settled).chunks)
    (outcome,) = settled
    assert outcome.usage_record() is not None
    assert replace(outcome, admission=replace(admission, facts={})).usage_record() is None
