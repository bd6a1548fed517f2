"""What is read of a JSON body: what it asks for, how large it may become, and what it shares with others."""

import json
import zlib
from typing import Any

import pytest

from dozen_chassis.errors import InvalidRequest
from dozen_gateway.edge.question import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    LEAST_PREFIX_BYTES,
    MESSAGES,
    MOST_PREFIX_BYTES,
    RESPONSES,
    Question,
    read_json,
)


def read(path: str, **fields: Any) -> Question:
    return read_json(path, json.dumps({"model": "smol", **fields}).encode())


def said(*contents: Any, **more: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content, **more} for content in contents]


IMAGE = {"type": "image_url", "image_url": {"url": "data:,"}}
TEXT = {"type": "text", "text": "[hi]"}


@pytest.mark.parametrize(
    ("path", "fields", "parts"),
    [
        (CHAT, {"messages": said("[hi]", 'a \\" [b]')}, 0),
        (CHAT, {"messages": said([TEXT, IMAGE], "hi", [IMAGE])}, 2),
        (CHAT, {"messages": said("é [", [TEXT])}, 0),
        (CHAT, {"messages": said([{"image_url": "x"}])}, 1),
        (CHAT, {"messages": said(5)}, 0),
        (CHAT, {"messages": said([5])}, 1),
        (CHAT, {"messages": "none"}, 0),
        (CHAT, {"messages": said([TEXT]), "input": said([IMAGE])}, 0),
        (MESSAGES, {"messages": said([{"type": "image", "source": {}}, TEXT])}, 1),
        (MESSAGES, {"messages": said([{"type": "tool_result", "content": [{"type": "image"}, TEXT]}])}, 1),
        (MESSAGES, {"messages": said([{"type": "tool_use", "input": {"a": [1]}}])}, 0),
        (RESPONSES, {"input": "hi"}, 0),
        (RESPONSES, {"input": "hi", "conversation": None, "previous_response_id": None}, 0),
        (RESPONSES, {"input": "hi", "previous_response_id": "resp_1"}, 1),
        (RESPONSES, {"input": "hi", "conversation": {"id": "conv_1"}}, 1),
        (RESPONSES, {"input": "hi", "prompt": {"id": "pmpt_1"}}, 1),
        (RESPONSES, {"input": said("hi", [{"type": "input_image"}, {"type": "input_text"}])}, 1),
        (RESPONSES, {"input": [{"type": "item_reference", "id": "msg_1"}]}, 1),
        (RESPONSES, {"input": [{"type": "function_call_output", "output": [{"type": "input_file"}]}]}, 1),
        (RESPONSES, {"input": [{"type": "reasoning", "summary": [{"type": "summary_text"}]}]}, 0),
        (EMBEDDINGS, {"input": ["a", "b"]}, 0),
    ],
)
def test_what_is_no_text_or_not_here_is_counted(path: str, fields: dict[str, Any], parts: int) -> None:
    assert read(path, **fields).asked.media_parts == parts


def test_a_part_cannot_hide_behind_an_escape() -> None:
    body = b'{"model":"smol","input":[{"\\u0074ype":"item_\\u0072eference","id":"msg_1"}]}'
    assert read_json(RESPONSES, body).asked.media_parts == 1


@pytest.mark.parametrize(
    ("path", "fields", "choices"),
    [
        (CHAT, {"messages": said("hi")}, 1),
        (CHAT, {"messages": said("hi"), "n": 3, "prompt": ["a", "b"]}, 3),
        (COMPLETIONS, {"prompt": "hi", "best_of": 4, "n": 2}, 4),
        (COMPLETIONS, {"prompt": ["a", "b", "c"], "n": 2}, 6),
        (COMPLETIONS, {"prompt": [1, 2, 3]}, 1),
        (COMPLETIONS, {"prompt": [[1], [2]], "messages": said("hi")}, 2),
        (RESPONSES, {"input": "hi"}, 1),
    ],
)
def test_choices_are_prompts_times_answers(path: str, fields: dict[str, Any], choices: int) -> None:
    assert read(path, **fields).asked.choices == choices


@pytest.mark.parametrize(
    ("fields", "most"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_tokens": 5, "max_completion_tokens": 0}, 0),
        ({"max_output_tokens": 7}, 7),
        ({"max_tokens": None, "max_output_tokens": None}, None),
    ],
)
def test_every_limit_of_an_answer_is_known(fields: dict[str, Any], most: int | None) -> None:
    assert read(CHAT, **fields).asked.max_tokens == most


@pytest.mark.parametrize("body", [b"", b"[]", b'{"max_output_tokens": "7"}', b'{"model": "\xff"}'])
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_json(COMPLETIONS, body)


def conversation(turns: int) -> list[dict[str, Any]]:
    return said(*(f"turn {number}: {'words ' * 20}" for number in range(turns)))


def test_a_short_prompt_has_no_prefix() -> None:
    assert not read(CHAT, messages=said("hi"), metadata={"a": "b" * LEAST_PREFIX_BYTES}).prefix
    assert read(CHAT, messages=said("x" * LEAST_PREFIX_BYTES)).prefix


def test_a_conversation_seldom_gets_another_prefix_as_it_goes_on() -> None:
    prefixes = [read(CHAT, messages=conversation(turns)).prefix for turns in range(5, 100)]
    assert len(set(prefixes)) <= 4
    assert prefixes == sorted(prefixes, key=prefixes.index)  # none comes back
    assert len(set(prefixes[30:])) == 1


def test_what_begins_differently_has_another_prefix() -> None:
    one, other = conversation(50), conversation(50)
    other[0]["content"] = "other"
    assert read(CHAT, messages=one).prefix != read(CHAT, messages=other).prefix
    late = [*one[:-1], {"role": "user", "content": "the end"}]
    assert read(CHAT, messages=one).prefix == read(CHAT, messages=late, temperature=0).prefix


@pytest.mark.parametrize(
    ("path", "first", "second"),
    [(MESSAGES, "system", "messages"), (RESPONSES, "instructions", "input")],
)
def test_instructions_come_before_the_rest(path: str, first: str, second: str) -> None:
    asked = {first: "be kind " * 100, second: said("hi")}
    assert read(path, **asked).prefix == read(path, **dict(reversed(asked.items()))).prefix
    raw = json.dumps(asked[first]) + json.dumps(asked[second])
    assert read(path, **asked).prefix == f"{zlib.crc32(raw[:512].encode()):08x}"
    asked[first] = "be brief " * 100
    assert read(path, **asked).prefix != f"{zlib.crc32(raw[:512].encode()):08x}"


def test_at_most_so_much_of_a_prompt_is_looked_at() -> None:
    text = "x" * 10 * MOST_PREFIX_BYTES
    assert read(COMPLETIONS, prompt=text).prefix == f"{zlib.crc32(json.dumps(text).encode()[:4096]):08x}"
