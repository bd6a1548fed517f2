"""OpenAI's own format passes all as it is."""

import json

import pytest

from dozen_inference.formats.openai import OpenAiFormat
from dozen_inference.formats.table import FORMATS
from dozen_inference.request import prepare

FORMAT = OpenAiFormat()
BODY = b'{ "model":"ours", "messages":[{"role":"user","content":"\\u00e9"}],"unknown":{"b":1.0,"a":2} }'
REQUEST = prepare(BODY, "messages", most_choices=1)


@pytest.mark.parametrize("model", ["", "ours"])
def test_a_body_is_not_looked_at(model: str) -> None:
    wire = FORMAT.request(REQUEST, "/v1/completions", model, "")
    assert (wire.path, wire.body) == ("/v1/completions", BODY)
    assert b"authorization" not in dict(wire.headers)


def test_only_the_models_name_is_replaced() -> None:
    wire = FORMAT.request(REQUEST, "/v1/chat/completions", "theirs", "secret")
    assert json.loads(wire.body) == {**json.loads(BODY), "model": "theirs"}
    assert b'"unknown":{"b":1.0,"a":2}' in wire.body
    assert dict(wire.headers)[b"authorization"] == b"Bearer secret"


def test_answers_and_streams_pass() -> None:
    assert FORMAT.whole(b"{ }") == b"{ }"
    stream = FORMAT.stream()
    assert (stream.feed(b"data: {"), stream.end()) == (b"data: {", b"")


def test_errors_tell_when_to_come_again() -> None:
    told = b'{"error":{"message":"Slow down","type":"rate_limit_error","param":null,"code":null}}'
    limited = FORMAT.error(429, told, "9")
    assert (limited.http.status, limited.headers) == (429, {"retry-after": "9"})
    assert FORMAT.error(401, b"{}", "9").headers == {}


def test_the_table_has_all() -> None:
    assert set(FORMATS) == {"", "openai", "anthropic", "gemini"}
