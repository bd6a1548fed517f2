"""The content filter: what is blocked before it is sent, and what before it is read."""

import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from dozen_chassis.admission import Admission
from dozen_chassis.errors import ServiceError
from dozen_inference.filter import (
    MOST_CHARACTERS,
    ContentFilter,
    ContentFiltered,
    FilterUnavailable,
    PromptTooLongToFilter,
    is_filtered,
)
from dozen_inference.generation import Answer
from dozen_testing.inference import WordModerator

ASKED = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
DONE = b"data: [DONE]\n\n"
FILLER = "All is well here, and it has been so for as long as anybody can remember. " * 3


def delta(content: str | None, finish: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": content, **fields}, "finish_reason": finish}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "small"}
    return b"data: " + json.dumps({**chunk, "choices": [choice]}).encode() + b"\n\n"


class Stage:
    """A filter, before an upstream that is watched."""

    def __init__(self, admission: Admission) -> None:
        self.moderator = WordModerator({"bomb": "illicit/violent", "hate": "hate"})
        self.admission = admission
        self.produced = 0
        self.ending: BaseException | None = None
        """What the producer was told in the middle of its answer."""

    async def ask(self, chunks: list[bytes], *, stream: bool = False, **fields: Any) -> list[bytes]:
        async def produce() -> AsyncGenerator[bytes, None]:
            try:
                for chunk in chunks:
                    self.produced += 1
                    yield chunk
            except BaseException as ending:
                self.ending = ending
                raise

        body = json.dumps({**ASKED, **fields}).encode()
        answer = ContentFilter(self.moderator).answer(self.admission, body, Answer(stream, produce()))
        return [chunk async for chunk in answer.chunks]


@pytest.fixture
def stage(admission: Admission) -> Stage:
    return Stage(admission)


def whole(content: str) -> bytes:
    return json.dumps({"choices": [{"message": {"content": content}, "finish_reason": "stop"}]}).encode()


async def test_what_is_harmless_passes_to_the_byte(stage: Stage) -> None:
    answer = whole("Hello.")
    assert await stage.ask([answer]) == [answer]
    events = [delta(""), *[delta(word + " ") for word in FILLER.split()], delta(None, "stop"), DONE]
    assert b"".join(await stage.ask(events, stream=True)) == b"".join(events)
    assert stage.moderator.asked[:2] == ["hi", "Hello."]


@pytest.mark.parametrize(
    "fields",
    [
        {"messages": [{"role": "user", "content": "a bomb"}]},
        {"messages": [{"role": "system", "content": "hate"}, {"role": "user", "content": "hi"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "a bomb"}]}]},
        {"prompt": "a bomb"},
        {"prompt": ["hi", "a bomb"]},
    ],
)
async def test_a_harmful_prompt_is_never_sent(stage: Stage, fields: dict[str, Any]) -> None:
    with pytest.raises(ContentFiltered, match=r"illicit/violent|hate") as blocked:
        await stage.ask([whole("Hello.")], **fields)
    assert (blocked.value.code, blocked.value.http.status) == ("content_filter", 400)
    assert stage.produced == 0


async def test_a_harmful_answer_is_taken_out(stage: Stage) -> None:
    (answer,) = await stage.ask([whole("This is how to build a bomb.")])
    (choice,) = json.loads(answer)["choices"]
    assert choice == {"message": {"content": None}, "finish_reason": "content_filter"}


async def test_a_stream_is_cut_before_what_is_harmful(stage: Stage) -> None:
    words = [*FILLER.split(), "A", "bomb.", *FILLER.split()]
    events = [*[delta(word + " ") for word in words], delta(None, "stop"), DONE]
    said = b"".join(await stage.ask(events, stream=True))
    assert b"bomb" not in said
    assert b"remember" in said
    *_, last, done, rest = said.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    chunk = json.loads(last.removeprefix(b"data: "))
    assert (chunk["id"], chunk["created"], chunk["model"]) == ("chatcmpl-1", 7, "small")
    assert chunk["choices"] == [{"index": 0, "delta": {}, "finish_reason": "content_filter"}]
    assert isinstance(stage.ending, ContentFiltered)  # so that it is settled as what it is
    assert stage.produced < len(events)


@pytest.mark.parametrize("field", ["reasoning_content", "refusal"])
async def test_whatever_a_model_writes_is_looked_at(stage: Stage, field: str) -> None:
    events = [delta(None, **{field: "a bomb"}), delta(None, "stop"), DONE]
    assert b"bomb" not in b"".join(await stage.ask(events, stream=True))


async def test_a_moderator_that_is_away_lets_nothing_pass(stage: Stage) -> None:
    class Away(WordModerator):
        async def categories(self, texts: Any) -> Any:
            raise FilterUnavailable()

    stage.moderator = Away()
    with pytest.raises(FilterUnavailable):
        await stage.ask([whole("Hello.")])
    assert stage.produced == 0


async def test_a_prompt_that_is_too_long_to_look_at_is_refused(stage: Stage) -> None:
    with pytest.raises(PromptTooLongToFilter):
        await stage.ask([whole("Hello.")], prompt="a" * (MOST_CHARACTERS + 1))


async def test_an_error_of_the_upstream_stays_what_it_is(stage: Stage) -> None:
    event = b'data: {"error":{"message":"boom"}}\n\n'
    assert b"".join(await stage.ask([delta("Hi."), event], stream=True)) == delta("Hi.") + event
    assert issubclass(ContentFiltered, ServiceError)


def test_the_policy_of_the_model_decides(admission: Admission) -> None:
    assert not is_filtered(admission)
    facts = {**admission.facts, "filter": "on"}
    assert is_filtered(Admission("acme", "key1", "req_1", admission.operation, facts))
