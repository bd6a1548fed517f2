"""Streams: cut anywhere, passed on unchanged, counted."""

import json
import time
from typing import Any

import pytest

from dozen_chassis.errors import ServiceError
from dozen_inference.streams import MAX_EVENT_BYTES, EventCutter, Tally, error_event
from dozen_inference.upstream import UpstreamFailed, UpstreamNotReady, UpstreamRefused

USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


def event(data: Any) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def delta(**fields: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": None}]})


ROLE = delta(role="assistant", content="")
DONE = b"data: [DONE]\n\n"
FINISH = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
USAGE_ONLY = event({"choices": [], "usage": USAGE})
STREAM = [ROLE, b": ping\n\n", delta(content="Grüße"), delta(content=" 🙂"), FINISH, USAGE_ONLY, DONE]


def test_events_are_whole_wherever_the_stream_is_split() -> None:
    whole = b"".join(STREAM)
    for place in range(len(whole)):
        cutter = EventCutter()
        assert cutter.feed(whole[:place]) + cutter.feed(whole[place:]) == STREAM


def test_events_are_whole_when_every_byte_comes_alone() -> None:
    cutter = EventCutter()
    assert [found for byte in b"".join(STREAM) for found in cutter.feed(bytes([byte]))] == STREAM


def test_lines_may_end_as_on_other_systems() -> None:
    cutter = EventCutter()
    assert cutter.feed(b"data: 1\r\n\r") == []
    assert cutter.feed(b"\ndata: 2\r\rdata") == [b"data: 1\r\n\r\n", b"data: 2\r\r"]


def test_an_event_without_an_end_is_not_waited_for() -> None:
    cutter = EventCutter()
    with pytest.raises(UpstreamFailed):
        cutter.feed(b"x" * (MAX_EVENT_BYTES + 1))


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_a_large_event_is_whole_and_looked_through_once(end: bytes) -> None:
    text = b"data: " + b"x" * (MAX_EVENT_BYTES - 1000)
    whole, cutter = text + end, EventCutter()
    # As small as packets are: what looks through all that has come with each one takes minutes.
    parts = [whole[place : place + 1400] for place in range(0, len(whole), 1400)]
    started = time.process_time()
    assert [event for part in parts for event in cutter.feed(part)] == [whole]
    assert time.process_time() - started < 2
    assert cutter.feed(DONE) == [DONE]


def test_everything_passes_unchanged_but_the_usage_that_only_we_asked_for() -> None:
    tally = Tally(usage_asked=False)
    assert tally.take(STREAM) == b"".join(STREAM[:-2])
    assert tally.end == DONE
    assert tally.usage is not None
    assert (tally.usage.prompt_tokens, tally.usage.completion_tokens) == (7, 2)
    assert (tally.tokens, tally.finish_reason) == (2, "stop")


def test_a_client_that_asked_for_the_usage_gets_it() -> None:
    tally = Tally(usage_asked=True)
    assert tally.take(STREAM) == b"".join(STREAM[:-1])


def test_usage_beside_choices_passes_and_the_last_one_counts() -> None:
    tally = Tally(usage_asked=False)
    first = event(
        {"choices": [{"index": 0, "text": "a"}], "usage": {"prompt_tokens": 7, "completion_tokens": 1}}
    )
    last = event({"choices": [{"index": 0, "text": "", "finish_reason": "length"}], "usage": USAGE})
    assert tally.take([first, last]) == first + last
    assert tally.usage is not None
    assert tally.usage.completion_tokens == 2


def test_usage_null_in_every_chunk_is_no_usage() -> None:
    tally = Tally(usage_asked=False)
    chunk = b'data: {"choices": [{"delta": {"content": "a"}, "finish_reason": null}], "usage": null}\n\n'
    assert tally.take([chunk]) == chunk
    assert tally.usage is None
    assert tally.tokens == 1


def test_what_a_model_writes_is_not_taken_for_what_the_server_says() -> None:
    tally = Tally(usage_asked=False)
    text = '{"usage":{"prompt_tokens":9999},"error":{"message":"no"},"finish_reason":"stop"} data: [DONE]\n\n'
    written = delta(content=text)
    assert tally.take(EventCutter().feed(written)) == written
    assert (tally.usage, tally.error, tally.finish_reason, tally.end) == (None, None, "", b"")


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"role": "assistant", "content": None}, 0),
        ({"role": "assistant", "content": ""}, 0),
        ({"content": "a"}, 1),
        ({"reasoning_content": "a"}, 1),
        ({"content": "", "reasoning": "a"}, 1),
        ({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]}, 0),
        ({"tool_calls": [{"index": 0, "function": {"arguments": '{"a'}}]}, 1),
    ],
)
def test_a_delta_with_text_is_counted_as_a_token(fields: dict[str, Any], tokens: int) -> None:
    tally = Tally(usage_asked=False)
    tally.take([delta(**fields)])
    assert tally.tokens == tokens


def test_what_comes_before_an_error_still_passes() -> None:
    tally = Tally(usage_asked=False)
    said = delta(content="a")
    error = event({"error": {"message": "out of memory", "type": "server_error", "code": 500}})
    assert tally.take([said, error, said]) == said
    assert isinstance(tally.error, UpstreamFailed)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"message": "too long", "code": 400}, UpstreamRefused),
        ({"message": "no", "code": "server_error"}, UpstreamFailed),
        ({"message": "loading", "code": 503}, UpstreamNotReady),
        ("no", UpstreamFailed),
        ([], UpstreamFailed),
    ],
)
def test_an_error_that_is_streamed_may_name_its_status(error: object, kind: type[ServiceError]) -> None:
    tally = Tally(usage_asked=False)
    assert tally.take([event({"error": error})]) == b""
    assert isinstance(tally.error, kind)


def test_an_error_may_be_the_event_itself() -> None:
    tally = Tally(usage_asked=False)
    assert tally.take([event({"object": "error", "message": "too long", "code": 400})]) == b""
    assert isinstance(tally.error, UpstreamRefused)
    assert tally.error.message == "too long"


def test_an_event_without_data_is_dropped() -> None:
    assert Tally(usage_asked=False).take([b"data: null\n\n", ROLE]) == ROLE


ENDLESS = b'data: {"usage":' + b"[" * 100_000 + b"\n\n"


@pytest.mark.parametrize(
    "strange",
    [
        b'data: {"usage":"none","choices":5}\n\n',
        b'data: {"usage":\xff}\n\n',
        b'data: {"finish_reason":5}\n\n',
        b'data: {"choices":[{"delta":{"content":"\xe2\x82"},"finish_reason":"stop"}]}\n\n',
        ENDLESS,
        b"event: x\ndata: {}\n\n",
        b": ping\n\n",
        b"data: \n\n",
        b"data:\ndata: {}\n\n",
        b"retry: 5\n\n",
        b"\n\n",
    ],
)
def test_what_we_do_not_understand_passes(strange: bytes) -> None:
    tally = Tally(usage_asked=False)
    assert tally.take([strange]) == strange
    assert tally.error is None


@pytest.mark.parametrize(
    "garbage",
    [b"<html></html>\n\n", b"data: nonsense\n\n", b'{"error":{}}\n\n', b"data: [1]\n\n", b"data:<\n\n"],
)
def test_what_is_no_event_is_an_error_after_what_came_before_it(garbage: bytes) -> None:
    tally = Tally(usage_asked=False)
    assert tally.take([ROLE, garbage, ROLE]) == ROLE
    assert isinstance(tally.error, UpstreamFailed)


@pytest.mark.parametrize(
    "usage",
    [
        {},
        [],
        "much",
        {"prompt_tokens": -1},
        {"prompt_tokens": 1.5},
        {"prompt_tokens": 2**40},
        {"completion_tokens": "9"},
        {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": -5}},
    ],
)
def test_a_usage_that_cannot_be_is_none(usage: Any) -> None:
    tally = Tally(usage_asked=True)
    assert tally.take([delta(content="a"), event({"choices": [], "usage": usage})])
    assert (tally.usage, tally.tokens) == (None, 1)


def test_an_error_event_is_openai_s_object() -> None:
    data = error_event(UpstreamFailed())
    assert data.startswith(b"data: {")
    assert data.endswith(b"}\n\n")
    assert set(json.loads(data[6:])["error"]) == {"message", "type", "param", "code"}
