"""Request bodies: what is checked, what is added, and what is left alone."""

import json
from typing import Any, Literal

import pytest

from dozen_chassis.errors import InvalidRequest
from dozen_inference.request import CompletionRequest, prepare

MESSAGES = [{"role": "user", "content": "héllo"}]


def read(
    body: dict[str, Any], prompt: Literal["messages", "prompt"] = "messages", choices: int = 1
) -> CompletionRequest:
    return prepare(json.dumps(body).encode(), prompt, most_choices=choices)


def test_the_body_of_a_whole_answer_is_sent_as_it_came() -> None:
    body = b'{ "messages": [{"role":"user"}],\n "model":"m", "temperature": 0.10, "unknown": {"b":1,"a":2} }'
    request = prepare(body, "messages", most_choices=1)
    assert request.body == body
    assert (request.model, request.stream, request.usage_asked) == ("m", False, False)


def test_a_stream_is_asked_for_its_usage_and_every_other_value_is_kept_to_the_byte() -> None:
    body = (
        b'{"model":"m","messages":[{"role":"user","content":"\\u00e9 \xc3\xa9"}],"stream":true,"top_p":0.50}'
    )
    request = prepare(body, "messages", most_choices=1)
    assert request.stream
    assert not request.usage_asked
    assert request.body == body[:-1] + b',"stream_options":{"include_usage":true}}'


def test_it_is_remembered_that_the_client_asked_for_usage_and_its_other_options_stay() -> None:
    options = {"include_usage": True, "include_obfuscation": False}
    request = read({"model": "m", "messages": MESSAGES, "stream": True, "stream_options": options})
    assert request.usage_asked
    assert json.loads(request.body)["stream_options"] == options


def test_a_client_that_declines_usage_does_not_get_it_but_we_do() -> None:
    options = {"include_usage": False}
    request = read({"model": "m", "messages": MESSAGES, "stream": True, "stream_options": options})
    assert not request.usage_asked
    assert json.loads(request.body)["stream_options"] == {"include_usage": True}


def test_where_nobody_reads_a_stream_the_answer_comes_whole() -> None:
    body = {"model": "m", "messages": MESSAGES, "stream": True, "stream_options": None, "seed": 1}
    request = prepare(json.dumps(body).encode(), "messages", most_choices=1, may_stream=False)
    assert not request.stream
    assert json.loads(request.body) == {"model": "m", "messages": MESSAGES, "seed": 1}


def test_null_is_as_good_as_absent() -> None:
    request = read({"model": "m", "messages": MESSAGES, "stream": None, "stream_options": None, "n": None})
    assert not request.stream


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": MESSAGES}, "model"),
        ({"model": 5, "messages": MESSAGES}, "model"),
        ({"model": "", "messages": MESSAGES}, "model"),
        ({"model": "m" * 257, "messages": MESSAGES}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": "hello"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": None}, "messages"),
        ({"model": "m", "messages": MESSAGES, "stream": "yes"}, "stream"),
        ({"model": "m", "messages": MESSAGES, "stream_options": [1]}, "stream_options"),
        ({"model": "m", "messages": MESSAGES, "n": 0}, "n"),
        ({"model": "m", "messages": MESSAGES, "n": -1}, "n"),
        ({"model": "m", "messages": MESSAGES, "n": 2}, "n"),
        ({"model": "m", "messages": MESSAGES, "n": 1.5}, "n"),
    ],
)
def test_a_wrong_body_is_refused_with_its_place(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(body)
    assert refused.value.param == param


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"\xff", b'{"a":' + b"[" * 100_000])
def test_what_is_not_an_object_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="request body is not valid"):
        prepare(body, "messages", most_choices=1)


@pytest.mark.parametrize(
    ("prompt", "choices"),
    [("text", 1), ([1, 2, 3], 1), (["a", "b"], 2), ([[1, 2], [3]], 2), (["a"], 1)],
)
def test_every_prompt_has_its_choices(prompt: Any, choices: int) -> None:
    read({"model": "m", "prompt": prompt, "n": 3}, "prompt", 3 * choices)
    with pytest.raises(InvalidRequest, match=f"asks for {3 * choices} choices"):
        read({"model": "m", "prompt": prompt, "n": 3}, "prompt", 3 * choices - 1)


@pytest.mark.parametrize("prompt", [None, [], 5, {"a": 1}, [1.5]])
def test_a_prompt_is_text_or_tokens(prompt: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read({"model": "m", "prompt": prompt}, "prompt")
    assert refused.value.param == "prompt"


def test_four_bytes_of_the_prompt_are_taken_for_a_token() -> None:
    assert read({"model": "m", "prompt": "a" * 7}, "prompt").prompt_tokens == 3  # with its quotes
