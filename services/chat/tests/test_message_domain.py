"""Messages as the chat completions that they ask for, and what these come to."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from anthropic.types import RawMessageStreamEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from dozen_chat.domain.invalid import Invalid
from dozen_chat.domain.message_errors import error_fields, streamed_error_fields
from dozen_chat.domain.message_events import MessageEvents
from dozen_chat.domain.message_object import ChatError, message_object, read_completion
from dozen_chat.domain.message_request import chat_body, read_message_request

USER = {"role": "user", "content": "Hi"}
PNG = {"type": "base64", "media_type": "image/png", "data": "aGk="}
USE = {"type": "tool_use", "id": "toolu_1", "name": "get_weather", "input": {"city": "東京"}}
THOUGHT = {"type": "thinking", "thinking": "Hm", "signature": "c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "eA=="}
WEATHER = {"name": "get_weather", "description": "Tells.", "input_schema": {"type": "object"}}
FUNCTION = {"name": "get_weather", "parameters": {"type": "object"}, "description": "Tells."}
SCHEMA = {"type": "object", "properties": {}, "additionalProperties": False}

_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


def asked(**fields: Any) -> dict[str, Any]:
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": [USER], **fields}).encode()
    found: dict[str, Any] = json.loads(chat_body(read_message_request(body)))
    return found


def test_a_plain_request() -> None:
    assert asked() == {
        "model": "m",
        "messages": [USER],
        "max_completion_tokens": 9,
    }


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}),
        ({"stop_sequences": ["a"]}, {"stop": ["a"]}),
        ({"temperature": 0.5, "top_p": 0.4, "top_k": 3}, {"temperature": 0.5, "top_p": 0.4, "top_k": 3}),
        ({"metadata": {"user_id": "u"}}, {"user": "u"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 9000}}, {"reasoning_effort": "medium"}),
        ({"thinking": {"type": "enabled", "budget_tokens": 90_000}}, {"reasoning_effort": "high"}),
        ({"thinking": {"type": "adaptive"}}, {"reasoning_effort": "high"}),
        ({"thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}, {"reasoning_effort": "low"}),
        ({"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}}, {}),
        ({"output_config": {"effort": "max"}}, {"reasoning_effort": "xhigh"}),
        (
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
                }
            },
        ),
        ({"service_tier": "auto", "cache_control": {"type": "ephemeral"}, "unheard_of": {}}, {}),
        ({"tools": [WEATHER]}, {"tools": [{"type": "function", "function": FUNCTION}]}),
        ({"tools": []}, {}),
    ],
)
def test_further_fields(fields: dict[str, Any], expected: dict[str, Any]) -> None:
    body = asked(**fields)
    assert {name: value for name, value in body.items() if name not in asked()} == expected


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "any", "disable_parallel_tool_use": True},
            {"tool_choice": "required", "parallel_tool_calls": False},
        ),
        (
            {"type": "tool", "name": "get_weather"},
            {"tool_choice": {"type": "function", "function": {"name": "get_weather"}}},
        ),
    ],
)
def test_tool_choices(choice: dict[str, Any], expected: dict[str, Any]) -> None:
    body = asked(tools=[{**WEATHER, "type": "custom"}], tool_choice=choice)
    assert {name: body[name] for name in expected} == expected


def test_what_is_said() -> None:
    pdf = {"type": "base64", "media_type": "application/pdf", "data": "aGk="}
    blocks = [
        {"type": "text", "text": "Look", "cache_control": {"type": "ephemeral"}},
        {"type": "image", "source": PNG},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "document", "source": pdf, "title": "a.pdf"},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Read"}},
    ]
    system = [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "And kind."}]
    messages = [{"role": "user", "content": blocks}, {"role": "system", "content": "Now."}, USER]
    first, second, third, last = asked(system=system, messages=messages)["messages"]
    assert first == {"role": "system", "content": "Be brief.\n\nAnd kind."}
    assert second["content"] == [
        {"type": "text", "text": "Look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,aGk="}},
        {"type": "text", "text": "Read"},
    ]
    assert (third, last) == ({"role": "system", "content": "Now."}, USER)


def test_calls_and_their_results() -> None:
    results = [
        {"type": "tool_result", "tool_use_id": "toolu_1", "content": "sunny", "is_error": False},
        {
            "type": "tool_result",
            "tool_use_id": "toolu_2",
            "content": [{"type": "text", "text": "noon"}, {"type": "image", "source": PNG}],
        },
        {"type": "tool_result", "tool_use_id": "toolu_3"},
        {"type": "text", "text": "So?"},
    ]
    said = [THOUGHT, REDACTED, {"type": "text", "text": "Let me see."}, USE]
    messages = [USER, {"role": "assistant", "content": said}, {"role": "user", "content": results}]
    _, called, *answered = asked(messages=messages)["messages"]
    arguments = called["tool_calls"][0]["function"].pop("arguments")
    assert json.loads(arguments) == {"city": "東京"}
    assert called == {
        "role": "assistant",
        "content": "Let me see.",
        "reasoning_content": "Hm",
        "thinking_blocks": [THOUGHT, REDACTED],
        "tool_calls": [{"id": "toolu_1", "type": "function", "function": {"name": "get_weather"}}],
    }
    assert [(one["role"], one.get("tool_call_id"), one["content"]) for one in answered[:3]] == [
        ("tool", "toolu_1", "sunny"),
        ("tool", "toolu_2", "noon"),
        ("tool", "toolu_3", ""),
    ]
    assert [part["type"] for part in answered[3]["content"]] == ["image_url", "text"]
    unsigned = [{"type": "thinking", "thinking": "Hm", "signature": ""}, {"type": "text", "text": "Hi"}]
    said_again = asked(messages=[USER, {"role": "assistant", "content": unsigned}, USER])["messages"][1]
    assert said_again == {"role": "assistant", "content": "Hi", "reasoning_content": "Hm"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": [{"type": "video"}]}]}, "messages[0].content[0].type"),
        ({"messages": [{"role": "user", "content": [USE]}]}, "messages[0].content[0]"),
        (
            {"messages": [USER, {"role": "assistant", "content": [{"type": "image", "source": PNG}]}]},
            "messages[1].content[0]",
        ),
        (
            {"messages": [{"role": "system", "content": [{"type": "image", "source": PNG}]}]},
            "messages[0].content",
        ),
        ({"tools": [{"type": "web_search_20260318", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
        ({"tool_choice": {"type": "some"}, "tools": [WEATHER]}, "tool_choice.type"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ({"container": "c1"}, "container"),
    ],
)
def test_what_cannot_be_done_is_said_by_name(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Invalid) as invalid:
        asked(**fields)
    assert invalid.value.param == param


def completion(finish: str = "stop", **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    usage = {
        "prompt_tokens": 30,
        "completion_tokens": 5,
        "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 3},
    }
    return json.dumps(
        {"id": "chatcmpl-1", "model": "m", "choices": [choice], "usage": usage, "object": "chat.completion"}
    ).encode()


def message(text: bytes, *, stops: Sequence[str] = (), tells_thoughts: bool = True) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        message_object(text, stop_sequences=stops, tells_thoughts=tells_thoughts)
    )
    return found


CALLS = [
    {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
    {"id": "call_2", "type": "function", "function": {"name": "g", "arguments": ""}},
]


def test_a_whole_answer() -> None:
    assert message(completion(content="Grüße")) == {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "Grüße"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 7,
            "cache_creation_input_tokens": 3,
            "cache_read_input_tokens": 20,
            "output_tokens": 5,
        },
    }


def test_an_answer_with_calls_and_thoughts() -> None:
    found = message(completion("tool_calls", content=None, reasoning="Hm", tool_calls=CALLS))
    assert found["content"] == [
        {"type": "thinking", "thinking": "Hm", "signature": ""},
        {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "call_2", "name": "g", "input": {}},
    ]
    assert found["stop_reason"] == "tool_use"
    signed = completion(content="Hi", reasoning_content="Hm", thinking_blocks=[THOUGHT, REDACTED])
    assert message(signed)["content"][:2] == [THOUGHT, REDACTED]
    assert message(signed, tells_thoughts=False)["content"] == [{"type": "text", "text": "Hi"}]
    broken = [{"id": "c", "function": {"name": "f", "arguments": "{oops"}}]
    assert message(completion(tool_calls=broken))["content"][0]["input"] == {"arguments": "{oops"}


@pytest.mark.parametrize(
    ("finish", "reason"),
    [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal"), ("eos", "end_turn")],
)
def test_stop_reasons(finish: str, reason: str) -> None:
    assert message(completion(finish, content="a"))["stop_reason"] == reason


def test_a_stop_sequence_is_told_where_it_is_known() -> None:
    stopped = completion(content="a").replace(b'"index": 0', b'"index": 0, "stop_reason": "b"')
    assert message(stopped, stops=["b"])["stop_sequence"] == "b"
    assert message(stopped, stops=["b"])["stop_reason"] == "stop_sequence"
    assert message(stopped, stops=["c"])["stop_reason"] == "end_turn"
    token = completion(content="a").replace(b'"index": 0', b'"index": 0, "stop_reason": 128001')
    assert message(token, stops=["b"])["stop_sequence"] is None
    with pytest.raises(ValueError, match="without a choice"):
        message(b'{"choices":[]}')
    with pytest.raises(ValueError, match="JSON"):
        message(b"<html>")


def streamed(*deltas: dict[str, Any], finish: str = "stop", tells_thoughts: bool = True) -> dict[str, Any]:
    """Give the message that the events add up to, each of which is one to Anthropic's client."""
    writer = MessageEvents(stop_sequences=["b"], tells_thoughts=tells_thoughts)
    said = b""
    for delta in deltas:
        said += writer.take(read_completion(json.dumps(event(delta)).encode()))
    said += writer.take(read_completion(json.dumps(event({}, finish)).encode()))
    usage = {"prompt_tokens": 30, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 20}}
    said += writer.take(read_completion(json.dumps({"choices": [], "usage": usage}).encode())) + writer.end()
    message: dict[str, Any] = {}
    inputs: dict[int, str] = {}
    names, opened = [], -1
    for text in said.decode().removesuffix("\n\n").split("\n\n"):
        name, data = text.split("\n")
        fields = json.loads(data.removeprefix("data: "))
        assert name == f"event: {fields['type']}"
        names.append(fields["type"])
        if fields["type"] != "ping":
            _EVENT.validate_python(fields)
        if fields["type"] == "message_start":
            message = fields["message"]
        if fields["type"] == "content_block_start":
            opened += 1
            message["content"].append(fields["content_block"])
        if fields["type"].startswith("content_block"):
            assert fields["index"] == opened  # one after the other
        if fields["type"] == "content_block_delta":
            (_, kind), (added, piece) = fields["delta"].items()
            if kind == "input_json_delta":
                inputs[opened] = inputs.get(opened, "") + piece
            else:
                assert kind == f"{added}_delta"
                message["content"][-1][added] += piece
        if fields["type"] == "message_delta":
            message |= {**fields["delta"], "usage": {**message["usage"], **fields["usage"]}}
    assert names[:2] == ["message_start", "ping"]
    assert names[-2:] == ["message_delta", "message_stop"]
    assert names.count("content_block_start") == names.count("content_block_stop") == opened + 1
    for index, text in inputs.items():
        message["content"][index]["input"] = json.loads(text)
    return message


def event(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-1", "model": "m", "choices": [choice], "usage": None}


def call(index: int, identifier: str | None = None, **function: str) -> dict[str, Any]:
    found: dict[str, Any] = {"index": index, "function": function}
    return {"tool_calls": [{**found, "id": identifier} if identifier else found]}


def test_a_streamed_answer() -> None:
    found = streamed({"role": "assistant", "content": ""}, {"content": "Grü"}, {"content": "ße"})
    assert (found["id"], found["model"], found["stop_reason"]) == ("msg_1", "m", "end_turn")
    assert [(block["type"], block["text"]) for block in found["content"]] == [("text", "Grüße")]
    assert found["usage"]["input_tokens"] == 10
    assert (found["usage"]["cache_read_input_tokens"], found["usage"]["output_tokens"]) == (20, 5)
    assert streamed()["content"] == []


def test_streamed_calls_and_thoughts() -> None:
    deltas: list[dict[str, Any]] = [
        {"reasoning_content": "H"},
        {"reasoning": "m"},
        {"thinking_blocks": [THOUGHT]},
        {"thinking_blocks": [REDACTED]},
        {"content": "See:"},
        call(0, "call_1", name="f", arguments=""),
        call(0, arguments='{"a":'),
        call(0, arguments="1}"),
        call(1, "call_2", name="g", arguments="{}"),
        call(1, arguments=""),
    ]
    found = streamed(*deltas, finish="tool_calls")
    assert [block["type"] for block in found["content"]] == [
        "thinking", "redacted_thinking", "text", "tool_use", "tool_use"
    ]  # fmt: skip
    assert found["content"][0] == THOUGHT
    assert found["content"][3]["input"] == {"a": 1}
    assert (found["content"][4]["name"], found["content"][4]["input"]) == ("g", {})
    assert found["stop_reason"] == "tool_use"
    hidden = streamed(*deltas, tells_thoughts=False)
    assert [block["type"] for block in hidden["content"]] == ["text", "tool_use", "tool_use"]


def test_pieces_of_a_call_that_has_ended_are_an_error() -> None:
    with pytest.raises(ValueError, match="has ended"):
        streamed(call(0, "a", name="f"), call(1, "b", name="g"), call(0, arguments="{}"))
    with pytest.raises(ValueError, match="has ended"):
        streamed(call(0, "a", name="f"), {"content": "So"}, call(0, arguments="{}"))


@given(
    st.lists(
        st.one_of(
            st.text(min_size=1, max_size=8).map(lambda text: ("content", text)),
            st.text(min_size=1, max_size=8).map(lambda text: ("reasoning_content", text)),
            st.dictionaries(st.text(max_size=3), st.text(max_size=3)).map(
                lambda made: ("call", json.dumps(made))
            ),
        ),
        max_size=12,
    )
)
def test_whatever_is_streamed_adds_up(pieces: list[tuple[str, str]]) -> None:
    deltas, calls = [], 0
    for kind, text in pieces:
        if kind == "call":
            deltas += [call(calls, f"call_{calls}", name="f"), call(calls, arguments=text)]
            calls += 1
        else:
            deltas.append({kind: text})
    found = streamed(*deltas)["content"]
    for kind, name in (("text", "content"), ("thinking", "reasoning_content")):
        said = "".join(block[kind] for block in found if block["type"] == kind)
        assert said == "".join(text for given_kind, text in pieces if given_kind == name)
    inputs = [block["input"] for block in found if block["type"] == "tool_use"]
    assert inputs == [json.loads(text) for kind, text in pieces if kind == "call"]


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (400, "invalid_request_error", "invalid_request_error"),
        (401, "invalid_request_error", "authentication_error"),
        (403, "invalid_request_error", "permission_error"),
        (404, "invalid_request_error", "not_found_error"),
        (413, "invalid_request_error", "request_too_large"),
        (429, "rate_limit_error", "rate_limit_error"),
        (429, "insufficient_quota", "billing_error"),
        (500, "server_error", "api_error"),
        (502, "server_error", "api_error"),
        (503, "server_error", "overloaded_error"),
        (504, "server_error", "timeout_error"),
    ],
)
def test_errors(status: int, kind: str, expected: str) -> None:
    assert error_fields("Oops", kind, status, "req_1") == {
        "error": {"type": expected, "message": "Oops"},
        "request_id": "req_1",
    }


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ChatError("Oops", "server_error", "upstream_error"), "api_error"),
        (ChatError("Oops", "server_error", "upstream_timeout"), "timeout_error"),
        (ChatError("Oops", "server_error", "upstream_overloaded"), "overloaded_error"),
        (ChatError("Oops", "invalid_request_error", "content_filter"), "invalid_request_error"),
        (ChatError("Oops"), "api_error"),
    ],
)
def test_errors_in_streams(error: ChatError, expected: str) -> None:
    assert streamed_error_fields(error, "req_1")["error"]["type"] == expected
