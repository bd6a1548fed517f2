"""Rules of the Responses API: what is asked, what of it is sent to models, and what is written of answers."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from openai.types.responses import Response as OfficialResponse
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from dozen_chat.domain.chat_answer import END, ChatError, read_answer, read_event
from dozen_chat.domain.chat_messages import chat_messages
from dozen_chat.domain.chat_request import chat_request
from dozen_chat.domain.invalid import Invalid, check_metadata
from dozen_chat.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    OutputText,
    common_part,
    number,
    read_items,
    say,
)
from dozen_chat.domain.response_object import join, new_response, write_apart
from dozen_chat.domain.response_request import read_request
from dozen_chat.domain.response_writer import ResponseWriter
from dozen_chat.domain.turns import Selection, page, read_stored, write_items

ID = "resp_" + "a" * 32
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
TOOL = {"type": "function", "name": "add", "parameters": {"type": "object", "x": 1.0}, "strict": True}


def asked(**fields: Any) -> Any:
    return read_request(json.dumps({"model": "m", "input": "hi", **fields}).encode())


def sent(items: Sequence[Any] | None = None, **fields: Any) -> dict[str, Any]:
    """Give the chat completion that is asked for."""
    read = asked(**fields)
    body: dict[str, Any] = json.loads(chat_request(read, read.items if items is None else items))
    return body


def read(given: Sequence[Any]) -> list[Item]:
    return read_items(given, "input")  # type: ignore[return-value]


def test_a_text_is_what_a_user_says() -> None:
    assert sent() == {"model": "m", "messages": [{"role": "user", "content": "hi"}]}


def test_everything_that_a_chat_completion_can_do_is_sent() -> None:
    body = sent(
        instructions="Be brief.",
        tools=[TOOL],
        tool_choice={"type": "function", "name": "add"},
        parallel_tool_calls=False,
        text={"format": {"type": "json_schema", "name": "n", "schema": {"b": 1, "a": 2}}, "verbosity": "low"},
        reasoning={"effort": "high", "summary": "auto"},
        max_output_tokens=5,
        temperature=0.5,
        top_p=0.9,
        include=["message.output_text.logprobs", "reasoning.encrypted_content"],
        top_logprobs=3,
        user="u",
        safety_identifier="s",
        prompt_cache_key="k",
        stream=True,
        seed=7,
        top_k=2,
    )
    assert body == {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        "tools": [
            {
                "type": "function",
                "function": {"name": "add", "parameters": {"type": "object", "x": 1.0}, "strict": True},
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": "add"}},
        "parallel_tool_calls": False,
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "n", "schema": {"b": 1, "a": 2}},
        },
        "verbosity": "low",
        "reasoning_effort": "high",
        "max_completion_tokens": 5,
        "temperature": 0.5,
        "top_p": 0.9,
        "logprobs": True,
        "top_logprobs": 3,
        "user": "u",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "stream": True,
        "stream_options": {"include_usage": True},
        "seed": 7,
        "top_k": 2,
    }
    assert list(body["response_format"]["json_schema"]["schema"]) == ["b", "a"]  # the order is meant


def test_what_is_accepted_without_effect_is_not_sent() -> None:
    body = sent(
        metadata={"a": "b"},
        store=False,
        truncation="auto",
        service_tier="auto",
        background=False,
        stream_options={"include_obfuscation": False},
        prompt_cache_retention="24h",
        max_tool_calls=3,
        include=None,
        tool_choice="auto",
        parallel_tool_calls=True,
    )
    assert set(body) == {"model", "messages"}


def test_the_choice_may_be_among_some_tools() -> None:
    other = {**TOOL, "name": "sub"}
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "sub"}]}
    body = sent(tools=[TOOL, other], tool_choice=choice)
    assert [tool["function"]["name"] for tool in body["tools"]] == ["sub"]
    assert body["tool_choice"] == "required"
    assert sent(tools=[TOOL], tool_choice="none")["tool_choice"] == "none"


def test_a_function_may_have_no_parameters() -> None:
    for tool in ({"type": "function", "name": "f"}, {"type": "function", "name": "f", "parameters": None}):
        assert sent(tools=[tool])["tools"] == [{"type": "function", "function": {"name": "f"}}]


def test_json_may_have_any_form() -> None:
    assert sent(text={"format": {"type": "json_object"}})["response_format"] == {"type": "json_object"}
    assert "response_format" not in sent(text={"format": {"type": "text"}})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"background": True}, "background"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"context_management": [{"type": "compaction"}]}, "context_management"),
        ({"moderation": {"model": "m"}}, "moderation"),
        ({"messages": []}, "messages"),
        ({"n": 2}, "n"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [TOOL, {"name": "add"}]}, "tools[1].type"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
        ({"tools": [TOOL] * 129}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"type": "function", "name": "add"}}, "tool_choice"),
        ({"tool_choice": {"type": "web_search_preview"}}, "tool_choice"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}},
            "tool_choice",
        ),
        ({"metadata": {str(key): "" for key in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: ""}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {"k": 5}}, "metadata[...]"),
        ({"include": ["everything"]}, "include"),
        ({"top_logprobs": 21}, "top_logprobs"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"truncation": "some"}, "truncation"),
        ({"previous_response_id": "resp_1", "conversation": "conv_1"}, "previous_response_id"),
        ({"conversation": {"id": "c" * 65}}, "conversation.id"),
        ({"text": {"format": {"type": "grammar"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "name": "", "schema": {}}}}, "text.format.name"),
        ({"input": [5]}, "input[0]"),
        ({"input": [{"type": "web_search_call"}]}, "input[0].type"),
        ({"input": [{"id": "msg_1"}]}, "input[0]"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": [{"type": "video"}]}]}, "input[0].content[0].type"),
        ({"input": [{"type": "function_call_output", "call_id": "", "output": "x"}]}, "input[0].call_id"),
        ({"input": [{"role": "user", "content": "x"}] * 1001}, "input"),
    ],
)
def test_what_is_not_done_here_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(Invalid) as refused:
        asked(**fields)
    assert refused.value.param == param


def test_a_body_that_is_not_json_is_refused() -> None:
    for body in (b"{", b"[]", b"\xff", b"[" * 100_000):
        with pytest.raises(Invalid):
            read_request(body)
    assert check_metadata(None) == {}


def test_items_become_messages() -> None:
    items = read(
        [
            {"role": "developer", "content": "First."},
            {"role": "system", "content": [{"type": "input_text", "text": "Second."}]},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is it?"},
                    {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
                    {"type": "input_image", "image_url": "data:image/png;base64,AA=="},
                    {"type": "input_file", "filename": "a.pdf", "file_data": "data:a/pdf;base64,AA=="},
                    {"type": "input_file", "file_url": "https://x/y.pdf"},
                    {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
                ],
            },
            {"type": "reasoning", "summary": [], "id": "rs_1", "encrypted_content": "?"},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed",
             "content": [{"type": "output_text", "text": "Let me ", "annotations": []},
                         {"type": "refusal", "refusal": "see."}]},
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}", "id": "fc_1"},
            {"type": "function_call", "call_id": "c2", "name": "look", "arguments": "[]", "status": None},
            {"type": "function_call_output", "call_id": "c1", "output": "a cat"},
            {"type": "function_call_output", "call_id": "c2",
             "output": [{"type": "input_text", "text": "a"},
                        {"type": "input_image", "image_url": "data:image/png;base64,AA=="}]},
            {"role": "developer", "content": "Be quick."},
        ]
    )  # fmt: skip
    assert chat_messages("Zeroth.", items) == [
        {"role": "system", "content": "Zeroth.\n\nFirst.\n\nSecond."},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is it?"},
                {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                {
                    "type": "file",
                    "file": {"filename": "a.pdf", "file_data": "data:a/pdf;base64,AA=="},
                },
                {"type": "file", "file": {"file_url": "https://x/y.pdf"}},
                {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
            ],
        },
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}},
                {"id": "c2", "type": "function", "function": {"name": "look", "arguments": "[]"}},
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
        {
            "role": "tool",
            "tool_call_id": "c2",
            "content": [
                {"type": "text", "text": "a"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            ],
        },
        {"role": "system", "content": "Be quick."},
    ]


def test_a_call_without_words_has_no_content() -> None:
    call = FunctionCall("c", "f", "{}")
    said = chat_messages(None, [say("x"), call, FunctionCallOutput("c", "y")])
    assert said[1]["content"] is None
    empty = Message("assistant", [OutputText("")])
    assert chat_messages(None, [say("x"), empty, call, FunctionCallOutput("c", "y")])[1:2] == said[1:2]


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([], "nothing to answer"),
        ([{"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}], "No tool output found"),
        ([{"type": "function_call_output", "call_id": "c", "output": "x"}], "No tool call found"),
        ([{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}], "image_url"),
        ([{"role": "user", "content": [{"type": "input_file", "file_id": "file-1"}]}], "file_data"),
        (
            [{"role": "assistant", "content": [{"type": "input_image", "image_url": "https://x"}]}],
            "only be text",
        ),
    ],
)
def test_what_says_nothing_to_a_model_is_refused(items: list[Any], words: str) -> None:
    with pytest.raises(Invalid, match=words) as refused:
        chat_messages(None, read(items))
    assert refused.value.param == "input"


def test_a_call_that_was_cut_off_is_not_sent() -> None:
    cut = FunctionCall("c", "f", '{"a', status="incomplete")
    assert chat_messages(None, [say("x"), cut]) == [{"role": "user", "content": "x"}]


def test_items_are_stored_with_ids_of_ours() -> None:
    assistant = {"role": "assistant", "content": "y", "id": None}
    items = read([{"role": "user", "content": "x", "id": "theirs"}, assistant])
    number(items, "b" * 32)
    assert [item.id for item in items] == [f"msg_{'b' * 32}0000", f"msg_{'b' * 32}0001"]
    assert [common_part(item.id) for item in items] == ["b" * 32] * 2
    assert common_part("msg_short") == ""
    stored = json.loads(write_items(items))
    assert stored[0] == {
        "type": "message",
        "role": "user",
        "content": [{"type": "input_text", "text": "x"}],
        "id": items[0].id,
        "status": "completed",
    }
    assert stored[1]["content"] == [{"type": "output_text", "text": "y", "annotations": []}]
    assert read_stored(write_items(items)) == items


def test_pages_are_cut_from_either_end() -> None:
    items: list[Item] = [say(str(index)) for index in range(5)]
    number(items, "c" * 32)

    def places(**selection: Any) -> tuple[list[int], bool]:
        found = page(items, Selection(**selection))
        assert found is not None
        return [items.index(item) for item in found[0]], found[1]

    assert places(limit=2) == ([4, 3], True)
    assert places(limit=2, after=items[3].id) == ([2, 1], True)
    assert places(limit=2, after=items[1].id) == ([0], False)
    assert places(limit=5, ascending=True) == ([0, 1, 2, 3, 4], False)
    assert places(limit=2, after=items[0].id, ascending=True) == ([1, 2], True)
    assert page(items, Selection(after="msg_x")) is None


class Stage:
    """A response that is being written, and the events of it."""

    def __init__(self, **fields: Any) -> None:
        read = asked(**fields)
        self.writer = ResponseWriter(new_response(ID, 100, read), logprobs=read.request.with_logprobs)
        self.text = self.writer.begin()

    def take(self, *deltas: dict[str, Any], **choice: Any) -> "Stage":
        for delta in deltas:
            self.event(choices=[{"delta": delta, **choice}])
        return self

    def event(self, **chunk: Any) -> "Stage":
        answer = read_event(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        assert answer is not None
        self.text += self.writer.take(answer)
        return self

    def complete(self, finish: str = "stop") -> list[dict[str, Any]]:
        self.event(choices=[{"delta": {}, "finish_reason": finish}])
        self.text += self.writer.complete(200)
        return self.events()

    def events(self) -> list[dict[str, Any]]:
        """Give the events; each is one that the official client knows, and they are numbered."""
        found = []
        for part in self.text.removesuffix(b"\n\n").split(b"\n\n"):
            name, data = part.split(b"\n")
            event = json.loads(data.removeprefix(b"data: "))
            assert name == b"event: " + event["type"].encode()
            EVENTS.validate_python(event)
            found.append(event)
        assert [event["sequence_number"] for event in found] == list(range(len(found)))
        return found


def types(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_a_text_is_written_as_the_official_clients_expect() -> None:
    stage = Stage().take({"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo"})
    stage.event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 2})
    events = stage.complete()
    assert types(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    item_id = f"msg_{'a' * 32}8000"
    assert events[0]["response"]["output"] == []
    assert events[2]["item"] == {
        "type": "message",
        "role": "assistant",
        "content": [],
        "id": item_id,
        "status": "in_progress",
    }
    assert [event["delta"] for event in events[4:6]] == ["Hel", "lo"]
    assert events[6]["text"] == "Hello"
    assert {event["item_id"] for event in events[3:8]} == {item_id}
    response = OfficialResponse.model_validate(events[-1]["response"])
    assert (response.status, response.output_text) == ("completed", "Hello")
    assert (response.created_at, response.completed_at) == (100, 200)
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (
        3,
        2,
        5,
    )


def test_function_calls_are_written_though_their_pieces_mix() -> None:
    def piece(index: int, arguments: str, **fields: Any) -> dict[str, Any]:
        function = {"arguments": arguments, **({"name": fields.pop("name")} if "name" in fields else {})}
        return {"index": index, "function": function, **fields}

    events = (
        Stage(tools=[TOOL])
        .take(
            {"content": "Hm."},
            {"tool_calls": [piece(0, "", id="c0", name="add"), piece(1, '{"b', id="c0", name="sub")]},
            {"tool_calls": [piece(1, '":2}'), piece(0, '{"a":1}')]},
        )
        .complete("tool_calls")
    )
    assert types(events)[4:] == [
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    _, first, second = events[-1]["response"]["output"]
    assert (first["name"], first["arguments"], first["status"]) == ("add", '{"a":1}', "completed")
    assert (second["name"], second["arguments"], second["status"]) == ("sub", '{"b":2}', "completed")
    assert first["call_id"] == "c0"
    assert second["call_id"] not in ("", "c0")  # clients tell calls apart by it


def test_what_was_thought_comes_before_what_is_said() -> None:
    for name in ("reasoning_content", "reasoning"):
        stage = Stage().take({name: "Well, "}, {name: "yes"}, {"content": "Yes."})
        events = stage.complete()
        assert types(events)[2:10] == [
            "output_item.added",
            "content_part.added",
            "reasoning_text.delta",
            "reasoning_text.delta",
            "reasoning_text.done",
            "content_part.done",
            "output_item.done",
            "output_item.added",
        ]
        thought, said = events[-1]["response"]["output"]
        assert thought["content"] == [{"type": "reasoning_text", "text": "Well, yes"}]
        assert (thought["summary"], thought["id"]) == ([], f"rs_{'a' * 32}8000")
        assert said["content"][0]["text"] == "Yes."


def test_a_refusal_is_a_part_of_its_own() -> None:
    events = Stage().take({"content": "No: "}, {"refusal": "I will "}, {"refusal": "not."}).complete()
    assert types(events)[4:-1] == [
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "content_part.added",
        "refusal.delta",
        "refusal.delta",
        "refusal.done",
        "content_part.done",
        "output_item.done",
    ]
    (item,) = events[-1]["response"]["output"]
    assert [part["type"] for part in item["content"]] == ["output_text", "refusal"]
    assert item["content"][1]["refusal"] == "I will not."


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_that_is_cut_is_incomplete(finish: str, reason: str) -> None:
    events = Stage().take({"content": "Once up"}).complete(finish)
    assert types(events)[-1] == "incomplete"
    response = events[-1]["response"]
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert response["output"][0]["status"] == "incomplete"
    assert response["completed_at"] is None


def test_only_the_last_call_is_incomplete() -> None:
    calls = [
        {"index": index, "id": f"c{index}", "function": {"name": "f", "arguments": "{"}} for index in (0, 1)
    ]
    events = Stage().take({"tool_calls": calls}).complete("length")
    assert [item["status"] for item in events[-1]["response"]["output"]] == ["completed", "incomplete"]


def test_an_answer_of_nothing_is_an_empty_text() -> None:
    response = Stage().complete()[-1]["response"]
    assert [item["content"][0]["text"] for item in response["output"]] == [""]
    assert Stage().complete("length")[-1]["response"]["output"] == []


def test_a_failure_ends_what_was_begun() -> None:
    stage = Stage().take({"content": "Once"})
    stage.text += stage.writer.fail(ChatError("It broke.", "upstream_error"))
    events = stage.events()
    assert types(events)[-4:] == ["content_part.done", "output_item.done", "error", "failed"]
    assert (events[-2]["code"], events[-2]["message"]) == ("upstream_error", "It broke.")
    response = events[-1]["response"]
    assert response["error"] == {"code": "server_error", "message": "It broke."}
    assert (response["status"], response["output"][0]["status"]) == ("failed", "incomplete")


def test_what_nobody_waits_for_is_cancelled() -> None:
    stage = Stage().take({"content": "Once"})
    stage.writer.cancel()
    response = stage.writer.response
    assert response.status == "cancelled"
    (item,) = response.output
    assert isinstance(item, Message)
    assert (item.status, item.content) == ("incomplete", [OutputText("Once", [], [])])


def test_how_likely_tokens_were_is_told_where_it_is_asked_for() -> None:
    token = {"token": "ä", "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": "a", "logprob": -1.0}]}
    choice = {"logprobs": {"content": [token]}}
    stage = Stage(include=["message.output_text.logprobs"]).take({"content": "ä"}, **choice)
    events = stage.complete()
    short = {"token": "ä", "logprob": -0.5, "top_logprobs": [{"token": "a", "logprob": -1.0}]}
    assert events[4]["logprobs"] == events[5]["logprobs"] == [short]
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == [
        {
            "token": "ä",
            "logprob": -0.5,
            "bytes": [195, 164],
            "top_logprobs": [{"token": "a", "logprob": -1.0, "bytes": [97]}],
        }
    ]
    assert Stage().take({"content": "ä"}, **choice).complete()[4]["logprobs"] == []


def test_a_whole_answer_is_written_as_a_streamed_one() -> None:
    message = {
        "role": "assistant",
        "content": "Hello",
        "reasoning_content": "Hm",
        "refusal": None,
        "tool_calls": [{"id": "c0", "type": "function", "function": {"name": "add", "arguments": "{}"}}],
    }
    details = {"cached_tokens": 2}, {"reasoning_tokens": 1}
    usage = {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "prompt_tokens_details": details[0],
        "completion_tokens_details": details[1],
    }
    whole = {"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": usage}
    stage = Stage(tools=[TOOL], metadata={"a": "b"}, instructions="i", conversation="conv_1")
    stage.writer.take(read_answer(json.dumps(whole).encode()))
    stage.writer.complete(200)
    written = join(*write_apart(stage.writer.response))
    assert written == msgspec.json.encode(stage.writer.response)
    response = OfficialResponse.model_validate_json(written)
    assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]
    assert response.output_text == "Hello"
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == 2
    assert response.usage.output_tokens_details.reasoning_tokens == 1
    assert response.conversation is not None
    assert (response.conversation.id, response.metadata) == ("conv_1", {"a": "b"})
    assert response.tools[0].to_dict() == {**TOOL, "description": None}


def test_events_that_say_nothing_are_left_out() -> None:
    assert read_event(b": ping\n\n") is None
    assert read_event(b"data: null\n\n") is None
    assert read_event(b"data: [DONE]\n\n") is END
    with pytest.raises(msgspec.MsgspecError):
        read_event(b"data: <html>\n\n")
