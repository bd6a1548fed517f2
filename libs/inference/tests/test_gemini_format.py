"""Chat completions at Gemini's API; every request passes the rules of its imitation."""

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dozen_chassis.errors import ServiceError
from dozen_inference.formats.gemini.contents import SKIP_SIGNATURE
from dozen_inference.formats.gemini.format import GeminiFormat
from dozen_inference.request import CompletionRequest, prepare
from dozen_inference.upstream import UpstreamFailed
from dozen_testing.imitations.gemini.replies import THOUGHT, blocked, event, events, reply
from dozen_testing.imitations.gemini.requests import Request
from dozen_testing.imitations.gemini.rules import SIGNATURE, read_request

MODEL = "gemini-2.5-flash"
NEWER = "gemini-3-pro"
USER = {"role": "user", "content": "Hi"}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
TIME = {"type": "function", "function": {"name": "get_time", "parameters": None}}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city":"Bonn"}'},
}
OTHER = {"id": "call_2", "type": "function", "function": {"name": "get_time", "arguments": ""}}
RESULTS = [
    {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
    {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "noon"}]},
]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}

FORMAT = GeminiFormat(now=lambda: 1_700_000_000.5)


def prepared(**fields: Any) -> CompletionRequest:
    body = {"model": "ours", "messages": [USER], **fields}
    return prepare(json.dumps(body).encode(), "messages", most_choices=100)


def asked(model: str = MODEL, **fields: Any) -> dict[str, Any]:
    """Give the translated body; the rules of the imitation hold for it."""
    wire = FORMAT.request(prepared(**fields), "/v1/chat/completions", model, "secret")
    body: dict[str, Any] = json.loads(wire.body)
    read_request(body, model)
    return body


def replied(model: str = MODEL, **fields: Any) -> dict[str, Any]:
    request = msgspec.json.decode(json.dumps(asked(model, **fields)).encode(), type=Request)
    return reply(request, model, {"city": "東京"})


def whole_of(answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(FORMAT.whole(json.dumps(answer).encode()))
    return found


def streamed(wire: bytes) -> dict[str, Any]:
    """Give the completion that a translated stream adds up to."""
    stream = FORMAT.stream()
    *data, done = (stream.feed(wire) + stream.end()).decode().removesuffix("\n\n").split("\n\n")
    assert done == "data: [DONE]"
    chunks = [json.loads(one.removeprefix("data: ")) for one in data]
    message: dict[str, Any] = {"content": None, "role": None}
    found: dict[str, Any] = {"message": message, "index": 0}
    for chunk in chunks[:-1]:
        assert (chunk["id"], chunk["created"], chunk["usage"]) == (chunks[0]["id"], 1_700_000_000, None)
        (choice,) = chunk["choices"]
        found |= {name: choice[name] for name in ("finish_reason", "logprobs") if choice.get(name)}
        delta = choice["delta"]
        message["role"] = message["role"] or delta.get("role")
        for name in ("content", "reasoning_content"):
            if delta.get(name):
                message[name] = (message.get(name) or "") + delta[name]
        for call in delta.get("tool_calls", []):
            assert call.pop("index") == len(message.setdefault("tool_calls", []))
            message["tool_calls"].append(call)
    assert chunks[-1]["choices"] == []
    return {"id": chunks[0]["id"], "choices": [found], "usage": chunks[-1]["usage"]}


@pytest.mark.parametrize(
    ("model", "stream", "path"),
    [
        (MODEL, False, "/v1/models/gemini-2.5-flash:generateContent"),
        (MODEL, True, "/v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse"),
        ("tunedModels/mine", False, "/v1/tunedModels/mine:generateContent"),
        ("a b?c", False, "/v1/models/a%20b%3Fc:generateContent"),
    ],
)
def test_a_request_has_a_path_and_a_key(model: str, stream: bool, path: str) -> None:
    wire = FORMAT.request(prepared(stream=stream), "/v1/chat/completions", model, "secret")
    assert wire.path == path
    assert dict(wire.headers)[b"x-goog-api-key"] == b"secret"


def test_messages_and_their_parts() -> None:
    parts = [
        {"type": "text", "text": "Look:"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.jpg?size=1"}},
        {"type": "input_audio", "input_audio": {"data": "aGk=", "format": "wav"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,aGk="}},
    ]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": "Nice."},
        {"role": "developer", "content": "And kind."},
        {"role": "user", "content": "More"},
    ]
    body = asked(messages=messages)
    assert body["systemInstruction"] == {"parts": [{"text": "Be brief."}, {"text": "And kind."}]}
    first, second, third = body["contents"]
    assert first == {
        "parts": [
            {"text": "Look:"},
            {"inlineData": {"mimeType": "image/png", "data": "aGk="}},
            {"fileData": {"fileUri": "https://example.com/a.jpg?size=1", "mimeType": "image/jpeg"}},
            {"inlineData": {"mimeType": "audio/wav", "data": "aGk="}},
            {"inlineData": {"mimeType": "application/pdf", "data": "aGk="}},
        ],
        "role": "user",
    }
    assert (second["role"], third["parts"]) == ("model", [{"text": "More"}])


def test_tools_their_calls_and_their_results() -> None:
    messages = [
        USER,
        {"role": "assistant", "tool_calls": [CALL, OTHER]},
        *RESULTS,
        {"role": "user", "content": "So?"},
    ]
    body = asked(messages=messages, tools=[WEATHER, TIME])
    _, called, answered, last = body["contents"]
    assert called["parts"] == [
        {"functionCall": {"name": "get_weather", "args": {"city": "Bonn"}, "id": "call_1"}},
        {"functionCall": {"name": "get_time", "args": {}, "id": "call_2"}},
    ]
    assert answered["parts"] == [
        {"functionResponse": {"name": "get_weather", "response": {"output": "sunny"}, "id": "call_1"}},
        {"functionResponse": {"name": "get_time", "response": {"output": "noon"}, "id": "call_2"}},
    ]
    assert last["parts"] == [{"text": "So?"}]
    assert body["tools"] == [
        {
            "functionDeclarations": [
                {
                    "name": "get_weather",
                    "description": "Tells the weather.",
                    "parametersJsonSchema": WEATHER["function"]["parameters"],  # type: ignore[index]
                },
                {"name": "get_time"},
            ]
        }
    ]


def test_newer_models_are_given_signatures() -> None:
    signed = {**CALL, "extra_content": {"google": {"thought_signature": SIGNATURE}}}
    for first, signature in ((signed, SIGNATURE), (CALL, SKIP_SIGNATURE)):
        body = asked(NEWER, messages=[USER, {"role": "assistant", "tool_calls": [first, OTHER]}, *RESULTS])
        parts = body["contents"][1]["parts"]
        assert [part.get("thoughtSignature") for part in parts] == [signature, None]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (
            {"type": "function", "function": {"name": "get_time"}},
            {"mode": "ANY", "allowedFunctionNames": ["get_time"]},
        ),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "auto",
                    "tools": [{"type": "function", "function": {"name": "get_time"}}],
                },
            },
            {"mode": "VALIDATED", "allowedFunctionNames": ["get_time"]},
        ),
    ],
)
def test_tool_choices(choice: Any, expected: dict[str, Any]) -> None:
    body = asked(tools=[WEATHER, TIME], tool_choice=choice)
    assert body["toolConfig"] == {"functionCallingConfig": expected}
    assert "toolConfig" not in asked(tools=[WEATHER])
    assert "toolConfig" not in asked(tool_choice="none")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, {}),
        ({"max_tokens": 5}, {"maxOutputTokens": 5}),
        ({"max_completion_tokens": 6, "max_tokens": 7}, {"maxOutputTokens": 6}),
        ({"temperature": 2, "top_p": 0.9, "top_k": 4}, {"temperature": 2.0, "topP": 0.9, "topK": 4}),
        ({"stop": "a"}, {"stopSequences": ["a"]}),
        ({"n": 2}, {"candidateCount": 2}),
        ({"n": 1}, {}),
        (
            {"seed": 7, "presence_penalty": 1, "frequency_penalty": -1},
            {"seed": 7, "presencePenalty": 1.0, "frequencyPenalty": -1.0},
        ),
        ({"logprobs": True, "top_logprobs": 3}, {"responseLogprobs": True, "logprobs": 3}),
        ({"logprobs": True}, {"responseLogprobs": True}),
        ({"user": "u", "store": True, "unheard_of": 1, "response_format": {"type": "text"}}, {}),
        ({"response_format": {"type": "json_object"}}, {"responseMimeType": "application/json"}),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}},
            {"responseMimeType": "application/json", "responseJsonSchema": SCHEMA},
        ),
        ({"reasoning_effort": "none"}, {"thinkingConfig": {"thinkingBudget": 0}}),
        (
            {"reasoning_effort": "medium"},
            {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 8192}},
        ),
        ({"reasoning_effort": "max"}, {"thinkingConfig": {"includeThoughts": True, "thinkingBudget": 24576}}),
    ],
)
def test_further_fields(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    assert asked(**fields)["generationConfig"] == expected


def test_newer_models_think_in_levels() -> None:
    levels = [
        asked(NEWER, reasoning_effort=effort)["generationConfig"]["thinkingConfig"]["thinkingLevel"]
        for effort in ("none", "low", "medium", "high", "xhigh")
    ]
    assert levels == ["MINIMAL", "LOW", "MEDIUM", "HIGH", "HIGH"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 9}, "n"),
        ({"n": 2, "stream": True}, "n"),
        ({"tools": [TIME], "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"temperature": 2.5}, "temperature"),
        ({"messages": [{"role": "system", "content": "a"}]}, "messages"),
        (
            {"messages": [USER, {"role": "tool", "tool_call_id": "x", "content": "a"}]},
            "messages[1].tool_call_id",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://a"}}]}
                ]
            },
            "messages[0].content[0].image_url.url",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]},
            "messages[0].content[0].file.file_data",
        ),
    ],
)
def test_what_cannot_be_said_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ServiceError) as refused:
        asked(**fields)
    assert refused.value.param == param
    assert refused.value.http.status == 400


@pytest.mark.parametrize("model", [MODEL, NEWER])
@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"messages": [{"role": "user", "content": "Grüße 東京 😀"}]}, "stop"),
        ({"tools": [WEATHER, TIME]}, "tool_calls"),
        ({"reasoning_effort": "high"}, "stop"),
        ({"max_tokens": 2}, "length"),
        ({"logprobs": True, "top_logprobs": 1}, "stop"),
    ],
)
def test_answers_whole_and_streamed_are_the_same(model: str, fields: dict[str, Any], reason: str) -> None:
    answer = replied(model, **fields)
    whole = whole_of(answer)
    assert (whole["model"], whole["created"]) == (model, 1_700_000_000)
    assert whole["id"] == f"chatcmpl-{answer['responseId']}"
    choice = whole["choices"][0]
    assert choice["finish_reason"] == reason
    assert ("logprobs" in choice) == ("logprobs" in fields)
    assert choice["message"].get("reasoning_content") == (THOUGHT if "reasoning_effort" in fields else None)
    assert whole["usage"] == {
        "prompt_tokens": 30,
        "completion_tokens": 15,
        "total_tokens": 45,
        "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    pieced = streamed(b"".join(events(answer)))
    for (choice,) in (whole["choices"], pieced["choices"]):
        for call in choice["message"].get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])  # but for escapes
    assert pieced == {name: whole[name] for name in ("id", "choices", "usage")}


def test_logprobs() -> None:
    found = whole_of(replied(logprobs=True, top_logprobs=1))["choices"][0]["logprobs"]
    first = {"token": "You", "logprob": -0.25, "bytes": [89, 111, 117]}
    assert found["content"][0] == {**first, "top_logprobs": [first]}


def test_calls_have_ids_and_what_goes_back_with_them() -> None:
    answer = replied(NEWER, tools=[WEATHER, TIME])
    message = whole_of(answer)["choices"][0]["message"]
    assert message["content"] is None
    assert [call["id"] for call in message["tool_calls"]] == ["fc_0", "fc_1"]
    assert message["tool_calls"][0]["extra_content"] == {"google": {"thought_signature": SIGNATURE}}
    results = [{"role": "tool", "tool_call_id": f"fc_{at}", "content": "so"} for at in range(2)]
    body = asked(NEWER, messages=[USER, message, *results], tools=[WEATHER, TIME])
    assert body["contents"][1] == answer["candidates"][0]["content"]
    older = replied(tools=[WEATHER, TIME])
    ids = [call["id"] for call in whole_of(older)["choices"][0]["message"]["tool_calls"]]
    assert ids == [f"call_{older['responseId']}_0", f"call_{older['responseId']}_1"]


def test_several_choices() -> None:
    whole = whole_of(replied(n=3))
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2]


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        ("STOP", "stop"),
        ("OTHER", "stop"),
        ("MAX_TOKENS", "length"),
        ("SAFETY", "content_filter"),
        ("RECITATION", "content_filter"),
        ("PROHIBITED_CONTENT", "content_filter"),
        ("SPII", "content_filter"),
    ],
)
def test_finish_reasons(reason: str, expected: str) -> None:
    answer = replied()
    answer["candidates"][0]["finishReason"] = reason
    assert whole_of(answer)["choices"][0]["finish_reason"] == expected
    assert streamed(b"".join(events(answer)))["choices"][0]["finish_reason"] == expected
    without: dict[str, Any] = {**answer, "candidates": [{"finishReason": reason}]}
    assert whole_of(without)["choices"][0]["message"]["content"] == ""


def test_a_model_that_could_not_call_has_failed() -> None:
    answer = {**replied(), "candidates": [{"finishReason": "MALFORMED_FUNCTION_CALL"}]}
    with pytest.raises(UpstreamFailed):
        whole_of(answer)
    with pytest.raises(UpstreamFailed):
        FORMAT.stream().feed(event(answer))


def test_a_prompt_that_is_blocked_is_refused() -> None:
    answer = blocked(MODEL, "SAFETY")
    for translate in (FORMAT.whole, lambda body: FORMAT.stream().feed(event(json.loads(body)))):
        with pytest.raises(ServiceError) as refused:
            translate(json.dumps(answer).encode())
        assert (refused.value.http.status, refused.value.code) == (400, "content_filter")


def test_the_end_of_a_stream() -> None:
    wire = list(events(replied()))
    early = FORMAT.stream()
    early.feed(b"".join(wire[:-1]))
    with pytest.raises(UpstreamFailed):
        early.end()
    finish = json.loads(wire[-1].removeprefix(b"data: "))
    usage = finish.pop("usageMetadata")
    apart = FORMAT.stream()
    given = apart.feed(b"".join(wire[:-1]) + event(finish))
    assert b"[DONE]" not in given
    late = event({"usageMetadata": usage, "modelVersion": MODEL})
    assert given + apart.feed(late) + apart.end() == FORMAT.stream().feed(b"".join(wire))
    silent = FORMAT.stream()
    silent.feed(b"".join(wire[:-1]) + event(finish))
    assert silent.end().endswith(b"data: [DONE]\n\n")
    with pytest.raises(UpstreamFailed):
        FORMAT.stream().end()


def test_streams_that_fail() -> None:
    with pytest.raises(UpstreamFailed) as failed:
        FORMAT.stream().feed(
            event({"error": {"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}})
        )
    assert failed.value.http.status == 503
    with pytest.raises(UpstreamFailed):
        FORMAT.stream().feed(b"data: {garbage\n\n")
    with pytest.raises(UpstreamFailed):
        FORMAT.whole(b"<html>")
    with pytest.raises(UpstreamFailed):
        FORMAT.whole(b"{}")


INFO = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
VIOLATION = {"fieldViolations": [{"field": "generation_config.temperature", "description": "No"}]}
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.5s"}


@pytest.mark.parametrize(
    ("status", "kind", "message", "details", "expected"),
    [
        (400, "INVALID_ARGUMENT", "Bad", [], (400, None, None)),
        (400, "INVALID_ARGUMENT", "Bad", [VIOLATION], (400, None, "temperature")),
        (
            400,
            "INVALID_ARGUMENT",
            "The input token count (9) exceeds the maximum number of tokens allowed (8).",
            [],
            (400, "context_length_exceeded", None),
        ),
        (400, "INVALID_ARGUMENT", "API key not valid.", [INFO], (502, "upstream_error", None)),
        (400, "FAILED_PRECONDITION", "User location is not supported", [], (502, "upstream_error", None)),
        (403, "PERMISSION_DENIED", "No", [], (502, "upstream_error", None)),
        (404, "NOT_FOUND", "models/x is not found", [], (502, "upstream_error", None)),
        (429, "RESOURCE_EXHAUSTED", "Quota", [RETRY], (429, "rate_limit_exceeded", None)),
        (500, "INTERNAL", "Oops", [], (502, "upstream_error", None)),
        (503, "UNAVAILABLE", "Overloaded", [], (503, "upstream_error", None)),
        (504, "DEADLINE_EXCEEDED", "Slow", [], (504, "upstream_timeout", None)),
    ],
)
def test_errors(
    status: int, kind: str, message: str, details: list[Any], expected: tuple[int, str | None, str | None]
) -> None:
    problem = {"error": {"code": status, "message": message, "status": kind, "details": details}}
    for body in (problem, [problem]):
        error = FORMAT.error(status, json.dumps(body).encode())
        assert (error.http.status, error.code, error.param) == expected
        assert error.headers.get("retry-after") == ("35" if status == 429 else None)
    assert FORMAT.error(status, json.dumps(problem).encode(), "7").headers.get("retry-after") == (
        "7" if expected[0] in (429, 503) else None
    )
    assert FORMAT.error(status, b"<html>").http.status == (expected[0] if status != 400 else 400)


TEXTS = st.text(min_size=1, max_size=30)
VALUES = st.dictionaries(
    st.text(max_size=5), st.text(max_size=9) | st.integers(-(2**53), 2**53) | st.booleans()
)


@given(
    text=TEXTS,
    city=TEXTS,
    cuts=st.lists(st.integers(1, 4000), max_size=20),
    fields=st.sampled_from([{}, {"tools": [WEATHER, TIME]}, {"reasoning_effort": "low"}]),
)
def test_any_split_of_a_stream_gives_the_same(text: str, city: str, cuts: list[int], fields: Any) -> None:
    body = asked(messages=[{"role": "user", "content": text}], **fields)
    request = msgspec.json.decode(json.dumps(body).encode(), type=Request)
    wire = b"".join(events(reply(request, MODEL, {"city": city})))
    at_once = FORMAT.stream().feed(wire)
    stream, places = FORMAT.stream(), [0, *sorted(cut % len(wire) for cut in cuts), len(wire)]
    pieces = [stream.feed(wire[start:end]) for start, end in pairwise(places)]
    assert b"".join(pieces) + stream.end() == at_once


@given(st.lists(st.tuples(TEXTS, st.lists(st.tuples(VALUES, TEXTS), max_size=3)), min_size=1, max_size=4))
def test_conversations_keep_their_texts_and_calls(
    turns: list[tuple[str, list[tuple[dict[str, Any], str]]]],
) -> None:
    messages: list[dict[str, Any]] = []
    called, results = [], []
    for number, (text, calls) in enumerate(turns):
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
        made = []
        for at, (values, result) in enumerate(calls):
            function = {"name": "get_weather", "arguments": json.dumps(values)}
            made.append({"id": f"call_{number}_{at}", "type": "function", "function": function})
            called.append((f"call_{number}_{at}", values))
            results.append((f"call_{number}_{at}", result))
        messages[-1]["tool_calls"] = made or None
        messages += [
            {"role": "tool", "tool_call_id": f"call_{number}_{at}", "content": result}
            for at, (_, result) in enumerate(calls)
        ]
    messages.append({"role": "user", "content": "And?"})
    parts = [part for content in asked(NEWER, messages=messages)["contents"] for part in content["parts"]]
    assert [part["text"] for part in parts if "text" in part] == [
        *(text for text, _ in turns for _ in range(2)), "And?"
    ]  # fmt: skip
    calls_found = [part["functionCall"] for part in parts if "functionCall" in part]
    assert [(call["id"], call["args"]) for call in calls_found] == called
    responses = [part["functionResponse"] for part in parts if "functionResponse" in part]
    assert [(one["id"], one["response"]["output"]) for one in responses] == results
