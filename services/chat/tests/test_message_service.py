"""Messages on chat completions that are as they are told to be."""

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dozen_chassis.admission import Admission
from dozen_chassis.errors import InvalidRequest
from dozen_chat.service.messages import MessagesService
from dozen_inference.generation import Answer
from dozen_inference.streams import error_event
from dozen_inference.upstream import UpstreamFailed, UpstreamTimeout

ADMISSION = Admission("acme", "key1", "req_1", "POST /v1/messages", {})
WHOLE = b'{"id":"chatcmpl-1","model":"m","choices":[{"message":{"content":"Hello"},"finish_reason":"stop"}]}'


def chunk(content: str, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": {"content": content}, "finish_reason": finish}
    fields = {"id": "chatcmpl-1", "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"
STREAM = [chunk("Grü"), b": ping\n\n", b"data: null\n\n", chunk("ße"), chunk("", "stop"), DONE]


@dataclass
class FakeCompletions:
    """Gives the same chunks to each request."""

    chunks: Sequence[bytes]
    asked: list[dict[str, Any]] = field(default_factory=list)
    caches: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    def complete(self, admitted: Admission, body: bytes, cache: str = "") -> Answer:
        self.asked.append(json.loads(body))
        self.caches.append(cache)
        return Answer(bool(self.asked[-1].get("stream")), self._give(), {"x-dozen-model": "m"})

    async def _give(self) -> AsyncGenerator[bytes, None]:
        try:
            for one in self.chunks:
                yield one
        except BaseException as problem:
            self.ended.append(type(problem).__name__)
            raise
        self.ended.append("end")


def ask(chat: FakeCompletions, cache: str = "", **fields: Any) -> Answer:
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}], **fields}
    return MessagesService(chat).create(ADMISSION, json.dumps(body).encode(), cache)


async def read(answer: Answer) -> bytes:
    return b"".join([one async for one in answer.chunks])


def names(said: bytes) -> list[str]:
    return [line.removeprefix("event: ") for line in said.decode().split("\n") if line.startswith("event: ")]


async def test_a_whole_message_tells_its_request_and_what_the_completion_tells() -> None:
    chat = FakeCompletions([WHOLE])
    answer = ask(chat, "no-store")
    assert json.loads(await read(answer))["content"] == [{"type": "text", "text": "Hello"}]
    assert not answer.stream
    assert answer.headers == {"x-dozen-model": "m", "request-id": "req_1"}
    assert (chat.caches, chat.ended) == (["no-store"], ["end"])


async def test_a_stream_is_read_to_its_end() -> None:
    chat = FakeCompletions([*STREAM, b": after the end\n\n"])
    said = await read(ask(chat, stream=True))
    assert names(said) == [
        "message_start", "ping", "content_block_start", "content_block_delta", "content_block_delta",
        "content_block_stop", "message_delta", "message_stop",
    ]  # fmt: skip
    assert chat.ended == ["end"]  # so that its connection is used again


async def test_whoever_leaves_stops_the_completion() -> None:
    chat = FakeCompletions(STREAM)
    answer = ask(chat, stream=True)
    await anext(answer.chunks)
    await answer.chunks.aclose()
    assert chat.ended == ["GeneratorExit"]


async def test_an_answer_that_is_none_has_failed() -> None:
    with pytest.raises(UpstreamFailed):
        await read(ask(FakeCompletions([b"<html>"])))
    with pytest.raises(UpstreamFailed):
        await read(ask(FakeCompletions([b"data: {garbage\n\n"]), stream=True))


@pytest.mark.parametrize(
    ("chunks", "kind"),
    [
        ([chunk("a"), b"data: {garbage\n\n"], "api_error"),
        ([chunk("a")], "api_error"),
        ([chunk("a"), error_event(UpstreamTimeout())], "timeout_error"),
        ([chunk("a") + error_event(UpstreamFailed())], "api_error"),
    ],
)
async def test_a_stream_that_fails_ends_in_one_error(chunks: list[bytes], kind: str) -> None:
    said = await read(ask(FakeCompletions(chunks), stream=True))
    assert names(said)[-2:] == ["content_block_delta", "error"]
    error = json.loads(said.decode().rsplit("data: ", 1)[1])
    assert (error["type"], error["error"]["type"], error["request_id"]) == ("error", kind, "req_1")


async def test_what_is_not_valid_is_not_asked() -> None:
    chat = FakeCompletions([WHOLE])
    with pytest.raises(InvalidRequest) as invalid:
        ask(chat, max_tokens="many")
    assert invalid.value.param == "max_tokens"
    assert not chat.asked


@given(st.lists(st.integers(1, 1000), max_size=8))
async def test_any_split_of_a_stream_gives_the_same(cuts: list[int]) -> None:
    wire = b"".join(STREAM)
    places = [0, *sorted(cut % len(wire) for cut in cuts), len(wire)]
    pieces = [wire[start:end] for start, end in pairwise(places)]
    assert await read(ask(FakeCompletions(pieces), stream=True)) == await read(
        ask(FakeCompletions([wire]), stream=True)
    )
