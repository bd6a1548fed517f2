"""Chat completions at Anthropic's Messages API; every request passes the rules of its imitation."""

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dozen_chassis.errors import ServiceError
from dozen_inference.formats.anthropic.format import AnthropicFormat
from dozen_inference.formats.anthropic.request import DEFAULT_MAX_TOKENS
from dozen_inference.request import CompletionRequest, prepare
from dozen_inference.upstream import UpstreamFailed
from dozen_testing.imitations.anthropic.replies import THOUGHT, event, events, reply
from dozen_testing.imitations.anthropic.requests import Request
from dozen_testing.imitations.anthropic.rules import SIGNATURE, read_request

MODEL = "claude-sonnet-5-5"
USER = {"role": "user", "content": "Hi"}
PNG = "data:image/png;base64,aGk="
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
TIME = {"type": "function", "function": {"name": "get_time", "strict": True}}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city":"Bonn"}'},
}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "additionalProperties": False}
ADAPTIVE = {"type": "adaptive", "display": "summarized"}
INVALID = "invalid_request_error"
TOO_LONG = "context_length_exceeded"

FORMAT = AnthropicFormat(now=lambda: 1_700_000_000.5)


def prepared(**fields: Any) -> CompletionRequest:
    body = {"model": "ours", "messages": [USER], **fields}
    return prepare(json.dumps(body).encode(), "messages", most_choices=8)


def asked(model: str = MODEL, **fields: Any) -> dict[str, Any]:
    """Give the translated body; the rules of the imitation hold for it."""
    wire = FORMAT.request(prepared(**fields), "/v1/chat/completions", model, "secret")
    body: dict[str, Any] = json.loads(wire.body)
    read_request(body, "2023-06-01")
    return body


def chunks_of(stream: bytes) -> list[dict[str, Any]]:
    *data, done = stream.decode().removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    return [json.loads(one.removeprefix("data: ")) for one in data]


def streamed(wire: bytes) -> dict[str, Any]:
    """Give the message that a translated stream adds up to, as the whole answer has it."""
    stream = FORMAT.stream()
    chunks = chunks_of(stream.feed(wire) + stream.end())
    message: dict[str, Any] = {"content": None, "role": None}
    found: dict[str, Any] = {"message": message, "index": 0}
    for chunk in chunks[:-1]:
        assert (chunk["id"], chunk["created"], chunk["usage"]) == (chunks[0]["id"], 1_700_000_000, None)
        (choice,) = chunk["choices"]
        found |= {name: choice[name] for name in ("finish_reason", "stop_reason") if choice.get(name)}
        delta = choice["delta"]
        message["role"] = message["role"] or delta.get("role")
        for name in ("content", "reasoning_content"):
            if delta.get(name):
                message[name] = (message.get(name) or "") + delta[name]
        message["thinking_blocks"] = message.get("thinking_blocks", []) + delta.get("thinking_blocks", [])
        for call in delta.get("tool_calls", []):
            calls = message.setdefault("tool_calls", [])
            if call["index"] == len(calls):
                calls.append({"id": call["id"], "type": "function", "function": {**call["function"]}})
            else:
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    if not message["thinking_blocks"]:
        del message["thinking_blocks"]
    assert chunks[-1]["choices"] == []
    return {"choices": [found], "usage": chunks[-1]["usage"], "model": chunks[-1]["model"]}


def replied(**fields: Any) -> dict[str, Any]:
    request = msgspec.json.decode(json.dumps(asked(**fields)).encode(), type=Request)
    return reply(request, {"city": "東京"})


def test_a_request_has_a_path_a_version_and_a_key() -> None:
    wire = FORMAT.request(prepared(), "/v1/chat/completions", MODEL, "secret")
    assert wire.path == "/v1/messages"
    headers = dict(wire.headers)
    assert (headers[b"x-api-key"], headers[b"anthropic-version"]) == (b"secret", b"2023-06-01")
    assert json.loads(wire.body)["model"] == MODEL
    named_alike = FORMAT.request(prepared(model=MODEL), "/v1/chat/completions", "", "secret")
    assert json.loads(named_alike.body)["model"] == MODEL


def test_what_the_system_says_is_apart_and_turns_are_joined() -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "user", "content": [{"type": "text", "text": "there"}, {"type": "text", "text": ""}]},
        {"role": "developer", "content": [{"type": "text", "text": "And kind."}]},
        {"role": "assistant", "content": "Hello"},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
        {"role": "user", "content": "Why?", "name": "Ann"},
    ]
    body = asked(messages=messages)
    assert body["system"] == [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "And kind."}]
    texts = [[block["text"] for block in turn["content"]] for turn in body["messages"]]
    assert texts == [["Hi", "there"], ["Hello", "No."], ["Why?"]]
    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]


def test_images_and_documents() -> None:
    pdf = {"file_data": "data:application/pdf;base64,aGk=", "filename": "a.pdf"}
    parts = [
        {"type": "image_url", "image_url": {"url": PNG, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "file", "file": pdf},
    ]
    (turn,) = asked(messages=[{"role": "user", "content": parts}])["messages"]
    assert turn["content"] == [
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aGk="}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="},
            "title": "a.pdf",
        },
    ]


def test_tools_their_calls_and_their_results() -> None:
    odd = {
        "id": "functions.get_time:0",
        "type": "function",
        "function": {"name": "get_time", "arguments": ""},
    }
    messages = [
        USER,
        {"role": "assistant", "content": None, "tool_calls": [CALL, odd]},
        {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        {
            "role": "tool",
            "tool_call_id": "functions.get_time:0",
            "content": [{"type": "text", "text": "noon"}],
        },
        {"role": "user", "content": "So?"},
    ]
    body = asked(messages=messages, tools=[WEATHER, TIME])
    _, called, answered = body["messages"]
    assert called["content"] == [
        {"type": "tool_use", "id": "call_1", "name": "get_weather", "input": {"city": "Bonn"}},
        {"type": "tool_use", "id": "functions_get_time_0", "name": "get_time", "input": {}},
    ]
    assert [block["type"] for block in answered["content"]] == ["tool_result", "tool_result", "text"]
    assert answered["content"][1]["tool_use_id"] == "functions_get_time_0"
    assert answered["content"][1]["content"] == [{"type": "text", "text": "noon"}]
    assert body["tools"] == [
        {
            "name": "get_weather",
            "input_schema": WEATHER["function"]["parameters"],  # type: ignore[index]
            "description": "Tells the weather.",
        },
        {"name": "get_time", "input_schema": {"type": "object", "properties": {}}, "strict": True},
    ]


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, {"type": "auto"}),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "get_time"}}},
            {"type": "tool", "name": "get_time"},
        ),
        ({"parallel_tool_calls": False}, {"type": "auto", "disable_parallel_tool_use": True}),
        (
            {"parallel_tool_calls": False, "tool_choice": "required"},
            {"type": "any", "disable_parallel_tool_use": True},
        ),
        ({"parallel_tool_calls": True}, None),
    ],
)
def test_tool_choices(fields: dict[str, Any], choice: Any) -> None:
    assert asked(tools=[WEATHER, TIME], **fields).get("tool_choice") == choice
    assert "tool_choice" not in asked(tool_choice="none")


def test_allowed_tools_are_all_there_are() -> None:
    named = {"type": "function", "function": {"name": "get_time"}}
    allowed = {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [named]}}
    body = asked(tools=[WEATHER, TIME], tool_choice=allowed)
    assert [tool["name"] for tool in body["tools"]] == ["get_time"]
    assert body["tool_choice"] == {"type": "auto"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"max_completion_tokens": 6, "max_tokens": 7}, {"max_tokens": 6}),
        ({}, {"max_tokens": DEFAULT_MAX_TOKENS}),
        ({"temperature": 0.5, "top_p": 0.9, "top_k": 4}, {"temperature": 0.5, "top_p": 0.9, "top_k": 4}),
        ({"temperature": 2}, {"temperature": 1.0}),
        ({"stop": "a"}, {"stop_sequences": ["a"]}),
        ({"stop": ["a", "b"]}, {"stop_sequences": ["a", "b"]}),
        ({"user": "u1"}, {"metadata": {"user_id": "u1"}}),
        ({"metadata": {"user_id": "u2", "x": "y"}, "user": "u1"}, {"metadata": {"user_id": "u2"}}),
        ({"seed": 1, "n": 1, "store": True, "unheard_of": {}, "logprobs": False}, {}),
        ({"presence_penalty": 0, "response_format": {"type": "text"}, "logit_bias": {}}, {}),
        ({"stream": True}, {"stream": True}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
        ),
        ({"cache_control": {"type": "ephemeral"}}, {"cache_control": {"type": "ephemeral"}}),
    ],
)
def test_further_fields(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    body = asked(**fields)
    kept = {"model", "messages", *({"max_tokens"} - set(expected))}
    assert {name: value for name, value in body.items() if name not in kept} == expected


def test_the_gateways_limit_is_the_answers() -> None:
    body = json.dumps({"model": "ours", "messages": [USER]}).encode()
    limited = prepare(body, "messages", most_choices=1, most_tokens=33)
    wire = FORMAT.request(limited, "/v1/chat/completions", MODEL, "")
    assert json.loads(wire.body)["max_tokens"] == 33


@pytest.mark.parametrize(
    ("model", "fields", "thinking", "effort"),
    [
        (MODEL, {"reasoning_effort": "low"}, ADAPTIVE, "low"),
        (MODEL, {"reasoning_effort": "minimal"}, ADAPTIVE, "low"),
        (MODEL, {"reasoning_effort": "none"}, {"type": "disabled"}, None),
        (MODEL, {"reasoning_effort": "max", "tools": [TIME], "tool_choice": "required"}, None, "max"),
        ("claude-mythos-preview", {"reasoning_effort": "xhigh"}, ADAPTIVE, "xhigh"),
        (
            "claude-haiku-4-5-20251001",
            {"reasoning_effort": "low"},
            {"type": "enabled", "budget_tokens": 2048},
            None,
        ),
        (
            "claude-sonnet-4-20250514",
            {"reasoning_effort": "high"},
            {"type": "enabled", "budget_tokens": 8191},
            None,
        ),
        ("claude-haiku-4-5", {"reasoning_effort": "low", "max_tokens": 1000}, None, None),
        ("claude-opus-4-6", {"reasoning_effort": "low"}, ADAPTIVE, "low"),
        (
            MODEL,
            {"thinking": {"type": "enabled", "budget_tokens": 2000}},
            {"type": "enabled", "budget_tokens": 2000},
            None,
        ),
    ],
)
def test_reasoning(model: str, fields: dict[str, Any], thinking: Any, effort: str | None) -> None:
    body = asked(model, **fields)
    assert body.get("thinking") == thinking
    assert body.get("output_config", {}).get("effort") == effort


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": -0.5}, "frequency_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"web_search_options": {"a": 1}}, "web_search_options"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
        ),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"tools": [{"type": "custom", "custom": {"name": "c"}}]}, "tools[0].type"),
        ({"tools": [TIME], "tool_choice": "some"}, "tool_choice"),
        ({"messages": [{"role": "function", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages"),
        ({"messages": [USER, {"role": "tool", "content": "a"}]}, "messages[1].tool_call_id"),
        (
            {
                "messages": [
                    USER,
                    {
                        "role": "assistant",
                        "tool_calls": [{**CALL, "function": {"name": "a", "arguments": "[1"}}],
                    },
                ]
            },
            "messages[1].tool_calls[0].function.arguments",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a/b"}}]}
                ]
            },
            "messages[0].content[0].image_url.url",
        ),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}],
                    }
                ]
            },
            "messages[0].content[0]",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type"),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ServiceError) as refused:
        asked(**fields)
    assert refused.value.param == param
    assert refused.value.http.status == 400


def test_only_chat_is_offered() -> None:
    with pytest.raises(ServiceError) as refused:
        FORMAT.request(prepared(), "/v1/completions", MODEL, "")
    assert refused.value.param == "model"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"messages": [{"role": "user", "content": "Grüße 東京 😀"}]}, "stop"),
        ({"tools": [WEATHER, TIME]}, "tool_calls"),
        ({"reasoning_effort": "high", "tools": [TIME]}, "tool_calls"),
        ({"max_tokens": 2}, "length"),
        ({"stop": ["said"]}, "stop"),
    ],
)
def test_answers_whole_and_streamed_are_the_same(fields: dict[str, Any], reason: str) -> None:
    message = replied(**fields)
    whole = json.loads(FORMAT.whole(json.dumps(message).encode()))
    assert whole["object"] == "chat.completion"
    assert (whole["id"], whole["created"]) == (f"chatcmpl-{message['id'][4:]}", 1_700_000_000)
    assert whole["choices"][0]["finish_reason"] == reason
    assert whole["usage"] == {
        "prompt_tokens": 30,
        "completion_tokens": 11,
        "total_tokens": 41,
        "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 3},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    pieced = streamed(b"".join(events(message)))
    for (choice,) in (whole["choices"], pieced["choices"]):
        for call in choice["message"].get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])  # but for spaces
    assert pieced == {name: whole[name] for name in ("choices", "usage", "model")}


def test_thoughts_come_with_their_signature_and_go_back_as_they_came() -> None:
    message = replied(reasoning_effort="low", tools=[WEATHER])
    message["content"].insert(0, {"type": "redacted_thinking", "data": "c2VjcmV0"})
    whole = json.loads(FORMAT.whole(json.dumps(message).encode()))["choices"][0]["message"]
    assert whole["reasoning_content"] == THOUGHT
    assert whole["thinking_blocks"] == [
        {"type": "redacted_thinking", "data": "c2VjcmV0"},
        {"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE},
    ]
    assert streamed(b"".join(events(replied(reasoning_effort="low"))))["choices"][0]["message"][
        "thinking_blocks"
    ] == [whole["thinking_blocks"][1]]
    result = {"role": "tool", "tool_call_id": whole["tool_calls"][0]["id"], "content": "sunny"}
    body = asked(messages=[USER, whole, result], tools=[WEATHER])
    assert body["messages"][1]["content"] == message["content"]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("end_turn", "stop"),
        ("pause_turn", "stop"),
        ("refusal", "content_filter"),
        ("model_context_window_exceeded", "length"),
    ],
)
def test_finish_reasons(reason: str, expected: str) -> None:
    message = {**replied(), "stop_reason": reason}
    whole = json.loads(FORMAT.whole(json.dumps(message).encode()))
    assert whole["choices"][0]["finish_reason"] == expected
    assert streamed(b"".join(events(message)))["choices"][0]["finish_reason"] == expected


def test_an_empty_answer_is_one_and_a_call_without_pieces_has_arguments() -> None:
    message = {**replied(), "content": []}
    assert json.loads(FORMAT.whole(json.dumps(message).encode()))["choices"][0]["message"]["content"] == ""
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}
    wire = [event("message_start", message={**message, "usage": {"input_tokens": 1, "output_tokens": 1}})]
    wire += [event("content_block_start", index=0, content_block=call), event("content_block_stop", index=0)]
    wire += [event("message_delta", delta={"stop_reason": "tool_use"}, usage={"output_tokens": 9})]
    wire += [event("unheard_of", x=1), event("message_stop")]
    found = streamed(b"".join(wire))
    function = found["choices"][0]["message"]["tool_calls"][0]["function"]
    assert function == {"name": "f", "arguments": '{"a": 1}'}
    assert found["usage"]["completion_tokens"] == 9


def test_streams_that_fail() -> None:
    wire = list(events(replied()))
    problem = event("error", error={"type": "overloaded_error", "message": "Overloaded"})
    stream = FORMAT.stream()
    assert stream.feed(b"".join(wire[:2])) == b""  # nothing is told before the model has begun
    with pytest.raises(UpstreamFailed) as failed:
        stream.feed(problem)
    assert failed.value.http.status == 503
    broken = FORMAT.stream()
    assert b"assistant" in broken.feed(b"".join(wire[:-1]))
    with pytest.raises(UpstreamFailed):
        broken.end()
    with pytest.raises(UpstreamFailed):
        FORMAT.stream().feed(b"data: {garbage\n\n")
    with pytest.raises(UpstreamFailed):
        FORMAT.whole(b"<html>")
    with pytest.raises(UpstreamFailed) as failed:
        FORMAT.whole(b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}')
    assert failed.value.http.status == 503


@pytest.mark.parametrize(
    ("status", "kind", "message", "expected"),
    [
        (400, INVALID, "temperature: range: 0..1", (400, None, "temperature")),
        (400, INVALID, "`temperature` is deprecated for this model.", (400, None, "temperature")),
        (400, INVALID, "max_tokens: 9 > 8, which is", (400, None, "max_tokens")),
        (400, INVALID, "prompt is too long: 9 tokens > 8 maximum", (400, TOO_LONG, None)),
        (
            400,
            INVALID,
            "input length and `max_tokens` exceed context limit: 9 + 1 > 8",
            (400, TOO_LONG, None),
        ),
        (400, INVALID, "Your credit balance is too low to access", (502, "upstream_error", None)),
        (401, "authentication_error", "invalid x-api-key", (502, "upstream_error", None)),
        (402, "billing_error", "Pay", (502, "upstream_error", None)),
        (403, "permission_error", "No", (502, "upstream_error", None)),
        (404, "not_found_error", "model: x", (502, "upstream_error", None)),
        (413, "request_too_large", "Too large", (413, "request_too_large", None)),
        (429, "rate_limit_error", "Slow down", (429, "rate_limit_exceeded", None)),
        (500, "api_error", "Oops", (502, "upstream_error", None)),
        (504, "timeout_error", "Slow", (504, "upstream_timeout", None)),
        (529, "overloaded_error", "Overloaded", (503, "upstream_error", None)),
    ],
)
def test_errors(status: int, kind: str, message: str, expected: tuple[int, str | None, str | None]) -> None:
    body = json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()
    error = FORMAT.error(status, body, "7")
    assert (error.http.status, error.code, error.param) == expected
    assert error.headers.get("retry-after") == ("7" if error.http.status in (429, 503) else None)
    if error.http.status in (502, 429):  # what is between the provider and us is not for callers
        assert message not in error.message
    told = FORMAT.stream()
    with pytest.raises(ServiceError) as raised:
        told.feed(event("error", error={"type": kind, "message": message}))
    assert (raised.value.http.status, raised.value.code) == expected[:2]


def test_an_error_that_is_no_json() -> None:
    assert FORMAT.error(502, b"<html>").http.status == 502
    assert FORMAT.error(400, b"").http.status == 400


TEXTS = st.text(min_size=1, max_size=30).filter(lambda text: text.strip() != "")
VALUES = st.dictionaries(
    st.text(max_size=5), st.text(max_size=9) | st.integers(-(2**53), 2**53) | st.booleans()
)


@given(
    text=TEXTS,
    values=st.fixed_dictionaries({"city": TEXTS}),
    cuts=st.lists(st.integers(1, 4000), max_size=20),
    kind=st.sampled_from(["text", "tools", "thoughts"]),
)
def test_any_split_of_a_stream_gives_the_same(
    text: str, values: dict[str, str], cuts: list[int], kind: str
) -> None:
    fields: dict[str, Any] = {"messages": [{"role": "user", "content": text}]}
    if kind != "text":
        fields |= {"tools": [WEATHER, TIME], **({"reasoning_effort": "low"} if kind == "thoughts" else {})}
    request = msgspec.json.decode(json.dumps(asked(**fields)).encode(), type=Request)
    wire = b"".join(events(reply(request, values)))
    at_once = FORMAT.stream().feed(wire)
    stream, places = FORMAT.stream(), [0, *sorted(cut % len(wire) for cut in cuts), len(wire)]
    pieces = [stream.feed(wire[start:end]) for start, end in pairwise(places)]
    assert b"".join(pieces) + stream.end() == at_once
    assert FORMAT.stream().feed(wire.replace(b"\n", b"\r\n")) == at_once


@given(
    st.lists(st.tuples(TEXTS, st.lists(st.tuples(TEXTS, VALUES, TEXTS), max_size=3)), min_size=1, max_size=4)
)
def test_conversations_keep_their_texts_and_calls(
    turns: list[tuple[str, list[tuple[str, dict[str, Any], str]]]],
) -> None:
    messages: list[dict[str, Any]] = []
    called, results = [], []
    for number, (text, calls) in enumerate(turns):
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
        if calls:
            made = [
                {
                    "id": f"call_{number}_{at}",
                    "type": "function",
                    "function": {"name": "get_weather", "arguments": json.dumps(values)},
                }
                for at, (_, values, _) in enumerate(calls)
            ]
            messages[-1]["tool_calls"] = made
            for at, (_, values, result) in enumerate(calls):
                messages.append({"role": "tool", "tool_call_id": f"call_{number}_{at}", "content": result})
                called.append((f"call_{number}_{at}", values))
                results.append((f"call_{number}_{at}", result))
    messages.append({"role": "user", "content": "And?"})
    body = asked(messages=messages, tools=[WEATHER])
    blocks = [block for turn in body["messages"] for block in turn["content"]]
    assert [block["text"] for block in blocks if block["type"] == "text"] == [
        *(text for text, _ in turns for _ in range(2)), "And?"
    ]  # fmt: skip
    assert [(one["id"], one["input"]) for one in blocks if one["type"] == "tool_use"] == called
    found = [
        (one["tool_use_id"], one["content"][0]["text"]) for one in blocks if one["type"] == "tool_result"
    ]
    assert found == results
