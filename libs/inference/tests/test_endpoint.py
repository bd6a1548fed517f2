"""Completions over HTTP, whoever leaves or fails when: what the client sees, and what is settled."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest

from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.admission import Admission
from dozen_chassis.hot import HotPaths
from dozen_chassis.http import create_http
from dozen_inference.endpoint import CompletionEndpoint
from dozen_inference.generation import Answer, Generator
from dozen_inference.outcome import Outcome
from dozen_inference.request import prepare
from dozen_inference.settlement import Settlements, Used
from dozen_inference.streams import MAX_EVENT_BYTES
from dozen_inference.upstream import Upstream
from dozen_testing.http import Signer, serve
from dozen_testing.inference import OneUpstream

PATH = "/v1/chat/completions"
ASKED = {"model": "small", "messages": [{"role": "user", "content": "hi"}]}
PROMPT_GUESS = 9  # bytes of those messages by four
AT_ONCE = 0.25
"""Seconds within which the inference server is rid of a client that has left."""

USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 10}}
EXACT = {"input_tokens": 2, "cached_input_tokens": 10, "output_tokens": 3}
DONE = b"data: [DONE]\n\n"


def event(**data: Any) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def delta(content: str | None, finish: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": content}, "finish_reason": finish}])


EVENTS = [
    delta(None),
    delta("Grüße"),
    delta(" 🙂"),
    delta("!"),
    delta(None, "stop"),
    event(choices=[], usage=USAGE),
    DONE,
]
TOKENS_AFTER = [0, 0, 1, 2, 3, 3, 3]
"""Deltas with text among the first so many events."""
WHOLE = json.dumps(
    {"choices": [{"message": {"content": "Grüße"}, "finish_reason": "stop"}], "usage": USAGE}, indent=1
).encode()


@dataclass
class Stage:
    """A served endpoint, and what was settled."""

    url: str
    session: aiohttp.ClientSession
    signer: Signer
    generator: Generator
    settled: list[Outcome] = field(default_factory=list)
    unused: list[UsageRecord] = field(default_factory=list)
    given: list[Outcome] = field(default_factory=list)
    """Outcomes that were to be settled, even where that did not come to an end."""
    settling: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1000))
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def settle(self, outcome: Outcome) -> None:
        self.given.append(outcome)
        await self.settling.acquire()
        async with self.changed:
            self.settled.append(outcome)
            self.changed.notify_all()

    async def outcome(self) -> Outcome:
        """Wait for the only outcome."""
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(lambda: self.settled)
        (outcome,) = self.settled
        return outcome

    def ask(self, **fields: Any) -> Any:
        headers = self.signer.headers(f"POST {PATH}", request_id="req_1")
        return self.session.post(self.url + PATH, json={**ASKED, **fields}, headers=headers)


@pytest.fixture
def limits() -> dict[str, Any]:
    return {"most_requests": 2, "first_byte_seconds": 5, "answer_seconds": 5}


@pytest.fixture
async def stage(upstream: Upstream, signer: Signer, limits: dict[str, Any]) -> AsyncIterator[Stage]:
    generator = Generator(OneUpstream(upstream), PATH, "chat", **limits)

    def begin(admission: Admission, body: bytes, headers: dict[bytes, bytes]) -> Answer:
        return generator.answer(admission, prepare(body, "messages", most_choices=1), ready.settle)

    async def put(entry: Used) -> None:
        ready.unused.append(entry.usage)

    endpoint = CompletionEndpoint(begin, Settlements(put, unused=Used))
    app = HotPaths(create_http("test", []), {PATH: endpoint}, admission_key=signer.key)
    async with serve(app) as url, aiohttp.ClientSession() as session:
        ready = Stage(url, session, signer, generator)
        yield ready


async def test_a_stream_passes_unchanged_without_the_usage_that_only_we_asked_for(
    stage: Stage, server: Any
) -> None:
    server.chunks = EVENTS
    async with stage.ask(stream=True) as answer:
        assert await answer.read() == b"".join(EVENTS[:-2]) + DONE
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["x-accel-buffering"] == "no"
        assert answer.headers["x-request-id"] == "req_1"
    ((headers, body),) = server.asked
    assert body == {**ASKED, "stream": True, "stream_options": {"include_usage": True}}
    assert headers["x-request-id"] == "req_1"
    outcome = await stage.outcome()
    assert (outcome.quantities, outcome.estimated) == (EXACT, False)
    assert (outcome.status, outcome.ending, outcome.stream) == (200, "stop", True)


async def test_a_client_that_asks_for_usage_gets_it(stage: Stage, server: Any) -> None:
    server.chunks = EVENTS
    async with stage.ask(stream=True, stream_options={"include_usage": True}) as answer:
        assert await answer.read() == b"".join(EVENTS)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 64, 1000])
async def test_a_stream_may_come_in_pieces_of_any_size(stage: Stage, server: Any, size: int) -> None:
    whole = b"".join(EVENTS)
    server.chunks = [whole[place : place + size] for place in range(0, len(whole), size)]
    async with stage.ask(stream=True) as answer:
        assert await answer.read() == b"".join(EVENTS[:-2]) + DONE
    assert (await stage.outcome()).quantities == EXACT


async def test_each_event_is_passed_on_before_the_next_one_comes(stage: Stage, server: Any) -> None:
    server.chunks, server.allowed = EVENTS, asyncio.Semaphore(1)
    async with stage.ask(stream=True) as answer:
        for sent in EVENTS[:5]:
            assert await answer.content.readexactly(len(sent)) == sent
            server.allowed.release()
        server.allowed.release()
        assert await answer.content.read() == DONE


async def test_usage_that_never_comes_is_counted(stage: Stage, server: Any) -> None:
    server.chunks = [*EVENTS[:5], DONE]
    async with stage.ask(stream=True) as answer:
        assert (await answer.read()).endswith(DONE)
    outcome = await stage.outcome()
    assert outcome.quantities == {"input_tokens": PROMPT_GUESS, "output_tokens": 3}
    assert outcome.estimated


async def test_a_whole_answer_passes_to_the_byte(stage: Stage, server: Any) -> None:
    server.chunks, server.content_type = [WHOLE[:20], WHOLE[20:]], "application/json"
    async with stage.ask(temperature=0.5) as answer:
        assert await answer.read() == WHOLE
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["content-length"] == str(len(WHOLE))
    outcome = await stage.outcome()
    assert (outcome.quantities, outcome.estimated, outcome.answer) == (EXACT, False, WHOLE)
    assert (outcome.status, outcome.ending, outcome.stream) == (200, "stop", False)


async def test_a_whole_answer_without_usage_is_counted(stage: Stage, server: Any) -> None:
    server.chunks, server.content_type = (
        [b'{"choices":[{"text":"12345678"},{"text":"9"}]}'],
        "application/json",
    )
    async with stage.ask() as answer:
        assert answer.status == 200
    outcome = await stage.outcome()
    assert outcome.quantities == {"input_tokens": PROMPT_GUESS, "output_tokens": 3}
    assert outcome.estimated


async def test_a_whole_answer_in_an_unusual_form_passes_all_the_same(stage: Stage, server: Any) -> None:
    odd = {
        "choices": [{"message": {"content": [{"text": "a"}]}, "finish_reason": None}, {}],
        "usage": {"x": 1.5},
    }
    for usage in (odd["usage"], {"prompt_tokens": -5}, {"completion_tokens": "many"}, {}, "none"):
        whole = json.dumps({**odd, "usage": usage}).encode()
        server.chunks, server.content_type = [whole], "application/json"
        async with stage.ask() as answer:
            assert await answer.read() == whole
    assert all(min(outcome.quantities.values()) >= 0 for outcome in stage.settled)
    assert [outcome.estimated for outcome in stage.settled] == [False, True, True, True, True]


async def test_a_stream_that_only_lacks_its_mark_is_given_it(stage: Stage, server: Any) -> None:
    server.chunks = EVENTS[:-1]
    async with stage.ask(stream=True) as answer:
        assert await answer.read() == b"".join(EVENTS[:-2]) + DONE
    outcome = await stage.outcome()
    assert (outcome.quantities, outcome.ending, outcome.error) == (EXACT, "stop", None)


async def test_a_large_event_passes(stage: Stage, server: Any) -> None:
    large = delta("x" * (MAX_EVENT_BYTES - 1000))
    server.chunks = [EVENTS[0], large, *EVENTS[4:]]
    async with stage.ask(stream=True) as answer:
        assert await answer.read() == b"".join([EVENTS[0], large, EVENTS[4], DONE])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("chunks", [[], [b""], [b'data: {"']])
async def test_an_answer_that_does_not_begin_is_not_waited_for(
    stage: Stage, server: Any, upstream: Upstream, stream: bool, chunks: list[bytes]
) -> None:
    server.chunks, server.ending = chunks, "hang"
    stage.generator._first_byte_seconds = stage.generator._answer_seconds = 0.1
    upstream._idle_seconds = 0.1
    async with stage.ask(stream=stream) as answer:
        assert answer.status == 504
        assert (await answer.json())["error"]["code"] == "upstream_timeout"
    async with asyncio.timeout(5):
        await server.left.wait()
    assert (await stage.outcome()).quantities == {}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("chunks", [[], [b""], [b'data: {"']])
async def test_a_client_may_leave_before_anything_has_come(
    stage: Stage, server: Any, stream: bool, chunks: list[bytes]
) -> None:
    server.chunks, server.ending = chunks, "hang"
    asking = asyncio.ensure_future(stage.ask(stream=stream).__aenter__())
    await server.arrived.wait()
    asking.cancel()
    async with asyncio.timeout(AT_ONCE):
        await server.left.wait()
    outcome = await stage.outcome()
    assert outcome.quantities == {"input_tokens": PROMPT_GUESS, "output_tokens": 0}
    assert (outcome.ending, outcome.status) == ("client_left", 499)


@pytest.mark.parametrize("stream", [True, False])
async def test_the_end_is_given_only_after_it_is_settled(stage: Stage, server: Any, stream: bool) -> None:
    server.chunks = EVENTS if stream else [WHOLE]
    server.content_type = "text/event-stream" if stream else "application/json"
    stage.settling = asyncio.Semaphore(0)
    asking = asyncio.ensure_future(stage.ask(stream=stream).__aenter__())
    if stream:
        answer = await asking
        said = await answer.content.readexactly(len(b"".join(EVENTS[:-2])))
        assert DONE not in said
        ending = asyncio.ensure_future(answer.content.readexactly(len(DONE)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(ending), 0.1)
        stage.settling.release()
        assert await ending == DONE
    else:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(asking), 0.1)
        stage.settling.release()
        answer = await asking
        assert await answer.read() == WHOLE
    answer.release()


@pytest.mark.parametrize("received", range(len(EVENTS)))
async def test_a_client_that_leaves_is_charged_for_what_was_generated(
    stage: Stage, server: Any, received: int
) -> None:
    server.chunks, server.allowed, server.ending = EVENTS[:-1], asyncio.Semaphore(received), "hang"
    asking = asyncio.ensure_future(
        stage.ask(stream=True, stream_options={"include_usage": True}).__aenter__()
    )
    async with asyncio.timeout(5):
        await server.arrived.wait()
        if received:
            answer = await asking
            await answer.content.readexactly(len(b"".join(EVENTS[:received])))
            answer.close()
        else:
            asking.cancel()
    async with asyncio.timeout(AT_ONCE):
        await server.left.wait()
    outcome = await stage.outcome()
    if received == 0:
        assert outcome.quantities == {"input_tokens": PROMPT_GUESS, "output_tokens": 0}
    elif received < 6:
        assert outcome.quantities == {"input_tokens": PROMPT_GUESS, "output_tokens": TOKENS_AFTER[received]}
        assert outcome.estimated
    else:
        assert (outcome.quantities, outcome.estimated) == (EXACT, False)
    assert outcome.ending == "client_left"
    assert outcome.status == (200 if received else 499)


async def test_a_client_that_has_all_and_leaves_is_charged_once(stage: Stage, server: Any) -> None:
    server.chunks, server.ending = EVENTS, "hang"
    async with stage.ask(stream=True) as answer:
        await answer.content.readexactly(len(b"".join(EVENTS[:-2]) + DONE))
        answer.close()
    assert (await stage.outcome()).quantities == EXACT
    async with asyncio.timeout(5):
        await server.left.wait()
    assert len(stage.settled) == 1


async def test_a_client_that_leaves_while_it_is_settled_is_charged_in_full(stage: Stage, server: Any) -> None:
    server.chunks, server.ending = EVENTS, "hang"
    stage.settling = asyncio.Semaphore(0)
    async with stage.ask(stream=True) as answer:
        await answer.content.readexactly(len(b"".join(EVENTS[:-2])))
        answer.close()
    async with asyncio.timeout(5):
        await server.left.wait()
    assert [outcome.quantities for outcome in stage.given] == [EXACT]


async def test_a_client_that_leaves_before_a_whole_answer_stops_it(stage: Stage, server: Any) -> None:
    server.chunks, server.content_type, server.ending = [WHOLE[:30]], "application/json", "hang"
    asking = asyncio.ensure_future(stage.ask().__aenter__())
    async with asyncio.timeout(5):
        await server.arrived.wait()
        asking.cancel()
        await server.left.wait()
    outcome = await stage.outcome()
    assert outcome.quantities == {"input_tokens": PROMPT_GUESS, "output_tokens": 0}
    assert (outcome.ending, outcome.status) == ("client_left", 499)


async def test_an_error_before_the_first_byte_has_its_own_status(stage: Stage, server: Any) -> None:
    server.status, server.content_type = 400, "application/json"
    server.chunks = [b'{"error":{"code":400,"message":"no such thing","type":"x","param":"top_p"}}']
    for stream in (True, False):
        async with stage.ask(stream=stream) as answer:
            assert answer.status == 400
            assert await answer.json() == {
                "error": {
                    "message": "no such thing",
                    "type": "invalid_request_error",
                    "param": "top_p",
                    "code": None,
                }
            }
    assert [(one.quantities, one.status, one.ending) for one in stage.settled] == [
        ({}, 400, "invalid_request_error")
    ] * 2


@pytest.mark.parametrize(
    ("stream", "content_type", "chunk"),
    [
        (True, "text/event-stream", event(error={"message": "boom", "code": 500})),
        (True, "application/json", b'{"error":{"message":"boom"}}'),
        (True, "text/event-stream", b": nothing else\n"),
        (True, "text/event-stream", b""),
        (True, "text/event-stream", b"<html>\n\n"),
        (True, "text/event-stream", b"data: nonsense\n\n"),
        (True, "text/event-stream", b"data: {" + b"x" * MAX_EVENT_BYTES),
        (True, "text/html", b"<html>"),
        (True, "application/json", WHOLE),
        (False, "application/json", b'{"error":{"message":"boom"}}'),
        (False, "application/json", b'{"object":"error","message":"boom"}'),
        (False, "text/html", b"<html>"),
        (False, "application/json", b""),
        (False, "application/json", WHOLE[:-1]),
        (False, "application/json", WHOLE.replace(b"\\u00fc", b"\xc3")),
        (False, "application/json", b'{"choices":' + b"[" * 100_000),
        (False, "text/event-stream", EVENTS[1]),
    ],
)
async def test_a_success_that_is_none_is_an_upstream_error(
    stage: Stage, server: Any, stream: bool, content_type: str, chunk: bytes
) -> None:
    server.content_type, server.chunks = content_type, [chunk]
    async with stage.ask(stream=stream) as answer:
        assert answer.status == 502
        assert (await answer.json())["error"]["code"] == "upstream_error"
    outcome = await stage.outcome()
    assert (outcome.quantities, outcome.ending) == ({}, "upstream_error")


@pytest.mark.parametrize(
    ("last", "ending", "code"),
    [
        ([], "end", "upstream_error"),
        ([], "die", "upstream_error"),
        ([], "hang", "upstream_timeout"),
        ([event(error={"message": "boom"})], "hang", "upstream_error"),
        ([event(object="error", message="boom")], "hang", "upstream_error"),
        ([b"<html>\n\n"], "hang", "upstream_error"),
        ([b"data: nonsense\n\n"], "hang", "upstream_error"),
        ([b"data: {" + b"x" * MAX_EVENT_BYTES], "hang", "upstream_error"),
        (["data: Grü".encode()[:-1]], "end", "upstream_error"),
        ([delta("half")[:20]], "die", "upstream_error"),
    ],
)
async def test_a_stream_that_breaks_ends_in_an_error_and_is_charged_so_far(
    stage: Stage, server: Any, upstream: Upstream, last: list[bytes], ending: str, code: str
) -> None:
    server.chunks, server.ending = [*EVENTS[:3], *last], ending
    upstream._idle_seconds = 0.2
    async with stage.ask(stream=True) as answer:
        said = await answer.read()
    passed = b"".join(EVENTS[:3])
    assert said.startswith(passed)
    assert b"[DONE]" not in said
    error = json.loads(said.removeprefix(passed).removeprefix(b"data: "))["error"]
    assert error["code"] == code
    assert error["type"] == "server_error"
    outcome = await stage.outcome()
    assert outcome.quantities == {"input_tokens": PROMPT_GUESS, "output_tokens": 2}
    assert (outcome.estimated, outcome.ending, outcome.status) == (True, code, 200)


async def test_more_requests_than_allowed_are_refused_until_one_ends(stage: Stage, server: Any) -> None:
    server.chunks, server.ending = EVENTS[:1], "hang"
    answers = [await stage.ask(stream=True).__aenter__() for _ in range(2)]
    async with stage.ask(stream=True) as refused:
        assert refused.status == 503
        assert refused.headers["retry-after"] == "1"
        assert (await refused.json())["error"]["code"] == "upstream_overloaded"
    for answer in answers:
        answer.close()
    async with asyncio.timeout(5), stage.changed:
        await stage.changed.wait_for(lambda: len(stage.settled) == 2)
    server.chunks, server.ending = EVENTS, "end"
    async with stage.ask(stream=True) as answer:
        assert answer.status == 200


async def test_a_wrong_body_does_not_go_upstream(stage: Stage, server: Any) -> None:
    async with stage.ask(messages="hi") as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]["param"] == "messages"
    assert not server.asked
    assert not stage.settled
