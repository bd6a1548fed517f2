"""Responses and conversations through the official client, on an inference server that does as it is told."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import pytest
from openai import (
    AsyncOpenAI,
    BadRequestError,
    ConflictError,
    InternalServerError,
    NotFoundError,
    pydantic_function_tool,
)
from openai.lib._tools import ResponsesPydanticFunctionTool
from openai.types.responses import Response
from pydantic import BaseModel

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen_chassis.postgres import Database
from dozen_chassis.run import serving
from dozen_chat.app import create_app
from dozen_chat.service.completions import PATH
from dozen_chat.settings import Settings
from dozen_testing.clients import openai_client
from dozen_testing.conditions import eventually
from dozen_testing.http import Signer, serve
from dozen_testing.inference import ToldUpstream, told

pytestmark = pytest.mark.integration

MODEL = "smollm2-135m-instruct"
USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 3,
    "prompt_tokens_details": {"cached_tokens": 10},
    "completion_tokens_details": {"reasoning_tokens": 1},
}
EXACT = {"input_tokens": 2, "cached_input_tokens": 10, "output_tokens": 3}


class Sum(BaseModel):
    """Adds."""

    a: int
    b: int


def event(**data: Any) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def script(*deltas: dict[str, Any], finish: str = "stop") -> list[bytes]:
    """Give the events of a stream."""
    pieces = [event(choices=[{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
    end = event(choices=[{"index": 0, "delta": {}, "finish_reason": finish}])
    return [*pieces, end, event(choices=[], usage=USAGE), b"data: [DONE]\n\n"]


def whole(finish: str = "stop", **message: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": USAGE}).encode()


def calls(*arguments: str) -> list[dict[str, Any]]:
    functions = [{"name": "Sum", "arguments": text} for text in arguments]
    return [
        {"index": index, "id": f"call_{index}", "type": "function", "function": function}
        for index, function in enumerate(functions)
    ]


def text(message: Any) -> str:
    """Give the first text of a message."""
    found: str = message.content[0].text
    return found


HELLO = [{"role": "assistant", "content": ""}, {"content": "Grüße"}, {"content": " 🙂"}, {"content": "!"}]
TEXT = "Grüße 🙂!"


@dataclass
class Stage:
    """A running chat service with an inference server, and no NATS to take its events."""

    url: str
    client: AsyncOpenAI
    signer: Signer
    upstream: ToldUpstream
    database: Database

    def answer(self, events: Sequence[bytes] = (), body: bytes = b"") -> None:
        self.upstream.events, self.upstream.whole = events, body

    @property
    def asked(self) -> dict[str, Any]:
        """What the inference server was last asked."""
        return list(self.upstream.bodies.values())[-1]

    @property
    def messages(self) -> list[Any]:
        return [message["content"] for message in self.asked["messages"]]

    async def used(self, request_id: str | None = None) -> list[dict[str, int]]:
        """Give what was reported of requests, or of one."""
        rows = await self.database.pool.fetch("select payload from outbox order by id")
        records = [record for row in rows for record in UsageReported.FromString(row["payload"]).records]
        asked = [one for one in records if one.operation == "POST /v1/responses"]  # the others are free
        return [dict(one.quantities) for one in asked if request_id in (None, one.request_id)]

    async def conversation(self, **fields: Any) -> str:
        return (await self.client.conversations.create(**fields)).id

    async def said(self, conversation_id: str) -> list[str]:
        items = self.client.conversations.items.list(conversation_id, order="asc", limit=2)
        return [text(item) async for item in items]


@pytest.fixture
async def stage(base_settings: dict[str, Any], signer: Signer, database: Database) -> AsyncIterator[Stage]:
    upstream = ToldUpstream(PATH, script(*HELLO), whole(content=TEXT))
    async with serve(upstream) as inference_url:
        kept = {**base_settings, "nats_url": "nats://127.0.0.1:1", "inference_url": inference_url}
        settings = Settings(**kept, idle_seconds=5, max_body_bytes=20_000)
        async with serving("chat", create_app, settings) as server:
            url = f"http://127.0.0.1:{server.http_port}"
            async with openai_client(url, signer) as client:
                yield Stage(url, client, signer, upstream, database)


async def test_a_whole_response_is_stored_and_charged(stage: Stage) -> None:
    response = await stage.client.responses.create(
        model="m", input="hi", instructions="Be brief.", metadata={"a": "b"}, max_output_tokens=9
    )
    assert (response.output_text, response.status, response.model) == (TEXT, "completed", "m")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens) == (12, 3)
    assert response.usage.input_tokens_details.cached_tokens == 10
    assert response.usage.output_tokens_details.reasoning_tokens == 1
    assert (response.instructions, response.metadata) == ("Be brief.", {"a": "b"})
    assert (await stage.client.responses.retrieve(response.id)).to_dict() == response.to_dict()
    assert stage.messages == ["Be brief.", "hi"]
    assert stage.asked["max_completion_tokens"] == 9
    assert response._request_id
    assert await stage.used(response._request_id) == [EXACT]


async def test_a_stream_is_what_the_client_accumulates(stage: Stage) -> None:
    async with stage.client.responses.stream(model="m", input="hi") as stream:
        seen = [one async for one in stream]
        final = await stream.get_final_response()
    assert final.output_text == TEXT
    assert [one.type for one in seen][:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert seen[-1].type == "response.completed"
    assert "".join(one.delta for one in seen if one.type == "response.output_text.delta") == TEXT
    assert [one.snapshot for one in seen if one.type == "response.output_text.delta"][-1] == TEXT
    stored = await stage.client.responses.retrieve(final.id)
    assert stored.output_text == TEXT
    assert await stage.used() == [EXACT]


async def test_a_raw_stream_has_numbered_events(stage: Stage) -> None:
    stream = await stage.client.responses.create(model="m", input="hi", stream=True, store=False)
    seen = [one async for one in stream]
    assert [one.sequence_number for one in seen] == list(range(len(seen)))
    assert seen[-1].type == "response.completed"
    with pytest.raises(NotFoundError):
        await stage.client.responses.retrieve(seen[-1].response.id)


async def test_an_answer_is_parsed(stage: Stage) -> None:
    stage.answer(script({"content": '{"a":1,'}, {"content": '"b":2}'}), whole(content='{"a":1,"b":2}'))
    parsed = await stage.client.responses.parse(model="m", input="hi", text_format=Sum)
    assert parsed.output_parsed == Sum(a=1, b=2)
    form = stage.asked["response_format"]
    assert (form["type"], form["json_schema"]["name"], form["json_schema"]["strict"]) == (
        "json_schema",
        "Sum",
        True,
    )
    assert set(form["json_schema"]["schema"]["properties"]) == {"a", "b"}
    async with stage.client.responses.stream(model="m", input="hi", text_format=Sum) as stream:
        assert (await stream.get_final_response()).output_parsed == Sum(a=1, b=2)


def sum_tool() -> Any:
    """Give the tool as `responses.parse` takes it."""
    return ResponsesPydanticFunctionTool(
        {
            "type": "function",
            "strict": True,
            "name": "Sum",
            "parameters": pydantic_function_tool(Sum)["function"]["parameters"],
            "description": "Adds.",
        },
        Sum,
    )


async def test_functions_are_called_and_answered(stage: Stage) -> None:
    stage.answer(
        script({"content": "Hm."}, {"tool_calls": calls('{"a":1,', '{"a":3,"b":4}')},
               {"tool_calls": [{"index": 0, "function": {"arguments": '"b":2}'}}]}, finish="tool_calls"),
        whole("tool_calls", content=None, tool_calls=calls('{"a":1,"b":2}')),
    )  # fmt: skip
    async with stage.client.responses.stream(model="m", input="Add.", tools=[sum_tool()]) as stream:
        first = await stream.get_final_response()
    parsed = [item.parsed_arguments for item in first.output if item.type == "function_call"]
    assert parsed == [Sum(a=1, b=2), Sum(a=3, b=4)]
    assert stage.asked["tools"][0]["function"]["name"] == "Sum"
    create: Any = stage.client.responses.create
    with pytest.raises(BadRequestError, match="No tool output found for function call call_1"):
        await create(
            model="m",
            previous_response_id=first.id,
            input=[{"type": "function_call_output", "call_id": "call_0", "output": "3"}],
        )
    outputs = [
        {"type": "function_call_output", "call_id": f"call_{index}", "output": output}
        for index, output in enumerate(("3", "7"))
    ]
    stage.answer(body=whole(content=TEXT))
    second = await create(model="m", previous_response_id=first.id, input=outputs)
    assert second.output_text == TEXT
    said = stage.asked["messages"][1]
    assert (said["content"], [one["id"] for one in said["tool_calls"]]) == ("Hm.", ["call_0", "call_1"])
    assert stage.asked["messages"][2:] == [
        {"role": "tool", "tool_call_id": "call_0", "content": "3"},
        {"role": "tool", "tool_call_id": "call_1", "content": "7"},
    ]


async def test_output_may_be_sent_back_as_input(stage: Stage) -> None:
    thought = whole("tool_calls", content=None, reasoning_content="Hm", tool_calls=calls('{"a":1,"b":2}'))
    stage.answer(body=thought)
    create: Any = stage.client.responses.create
    first = await create(model="m", input="Add.", store=False, include=["reasoning.encrypted_content"])
    assert [item.type for item in first.output] == ["reasoning", "function_call"]
    stage.answer(body=whole(content=TEXT))
    given = [
        {"role": "user", "content": "Add."},
        *first.output,
        {"type": "function_call_output", "call_id": "call_0", "output": "3"},
    ]
    second = await create(model="m", input=given)
    assert [message["role"] for message in stage.asked["messages"]] == ["user", "assistant", "tool"]
    items = [item async for item in stage.client.responses.input_items.list(second.id, order="asc", limit=1)]
    assert [item.type for item in items] == ["message", "reasoning", "function_call", "function_call_output"]
    assert len({item.id for item in items}) == 4
    last = await stage.client.responses.input_items.list(second.id, limit=1)
    assert (last.data[0].type, last.has_more) == ("function_call_output", True)


async def test_a_chain_goes_on(stage: Stage) -> None:
    create: Any = stage.client.responses.create
    first = await create(model="m", input="one", instructions="Shout.")
    second = await create(model="m", input="two", previous_response_id=first.id, stream=True)
    final = [one async for one in second][-1].response
    await create(model="m", input="three", previous_response_id=final.id)
    assert stage.messages == ["one", TEXT, "two", TEXT, "three"]
    await stage.client.responses.delete(first.id)
    with pytest.raises(NotFoundError) as gone:
        await stage.client.responses.retrieve(first.id)
    assert gone.value.code == "response_not_found"
    with pytest.raises(BadRequestError) as refused:
        await create(model="m", input="x", previous_response_id=first.id)
    assert (refused.value.code, refused.value.param) == (
        "previous_response_not_found",
        "previous_response_id",
    )


async def test_an_answer_that_is_cut_is_incomplete(stage: Stage) -> None:
    stage.answer(script(*HELLO, finish="length"), whole("length", content=TEXT))
    response = await stage.client.responses.create(model="m", input="hi", max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    stream = await stage.client.responses.create(model="m", input="hi", stream=True)
    last = [one async for one in stream][-1]
    assert last.type == "response.incomplete"
    assert await stage.used() == [EXACT, EXACT]


async def test_no_answer_has_more_tokens_than_are_held_for_it(stage: Stage) -> None:
    held = replace(stage.signer, facts={**stage.signer.facts, "max-tokens": "2"})
    async with openai_client(stage.url, held) as client:
        await client.responses.create(model="m", input="hi")
    assert stage.asked["max_completion_tokens"] == 2
    assert await stage.used() == [{**EXACT, "output_tokens": 2}]


async def leave(stage: Stage, events: int, **fields: Any) -> Response:
    """Leave once the inference server has said so many events; give the response as it began."""
    stream = await stage.client.responses.create(
        model="m", input="hi", stream=True, extra_body={**told(events, "hang"), **fields}
    )
    begun: Response | None = None
    deltas = 0
    async for one in stream:
        if one.type == "response.created":
            begun = one.response
        deltas += one.type == "response.output_text.delta"
        if begun is not None and deltas == max(events - 1, 0):
            break
    await stream.close()
    assert begun is not None
    return begun


@pytest.mark.parametrize("events", [1, 2, 3])
async def test_a_client_may_leave(stage: Stage, events: int) -> None:
    conversation_id = await stage.conversation()
    begun = await leave(stage, events, conversation=conversation_id)

    async def stored() -> Response | None:
        try:
            return await stage.client.responses.retrieve(begun.id)
        except NotFoundError:
            return None

    response = await eventually(stored)
    assert response is not None
    assert response.status == "cancelled"
    assert response.output_text == "".join(delta["content"] for delta in HELLO[1:events])
    ((used),) = await stage.used()
    assert used.get("output_tokens", 0) == events - 1
    assert len(stage.upstream.left) == 1
    assert await stage.said(conversation_id) == []
    again: Any = await stage.client.responses.create(model="m", input="x", conversation=conversation_id)
    assert again.status == "completed"


async def test_a_client_may_leave_before_there_is_an_answer(stage: Stage) -> None:
    for stream in (True, False):
        left = len(stage.upstream.left)
        create: Any = stage.client.responses.create
        asking = asyncio.ensure_future(
            create(model="m", input="hi", stream=stream, extra_body=told(0, "hang"))
        )

        async def arrived(before: int = left) -> bool:
            return len(stage.upstream.bodies) > before

        await eventually(arrived)
        asking.cancel()

        async def gone(before: int = left) -> bool:
            return len(stage.upstream.left) > before and len(await stage.used()) > before

        await eventually(gone)
    assert [one.get("output_tokens", 0) for one in await stage.used()] == [0, 0]
    assert await stage.database.pool.fetchval("select count(*) from responses") == 0


async def test_an_inference_server_that_dies_fails_the_response(stage: Stage) -> None:
    stream = await stage.client.responses.create(
        model="m", input="hi", stream=True, extra_body=told(3, "die")
    )
    *_, error, failed = [one async for one in stream]
    assert error.type == "error"
    assert error.code == "upstream_error"
    assert failed.type == "response.failed"
    assert failed.response.error is not None
    assert failed.response.error.code == "server_error"
    stored = await stage.client.responses.retrieve(failed.response.id)
    assert (stored.status, stored.output_text) == ("failed", "Grüße 🙂")
    ((used),) = await stage.used()
    assert used["output_tokens"] == 2
    with pytest.raises(InternalServerError) as refused:
        await stage.client.responses.create(model="m", input="hi", extra_body=told(0, "die"))
    assert refused.value.code == "upstream_error"
    assert await stage.used() == [used, {}]


async def test_a_conversation_is_kept(stage: Stage) -> None:
    conversations = stage.client.conversations
    created = await conversations.create(
        metadata={"a": "b"}, items=[{"type": "message", "role": "user", "content": "zero"}]
    )
    assert (created.object, created.metadata) == ("conversation", {"a": "b"})
    assert await conversations.retrieve(created.id) == created
    assert (await conversations.update(created.id, metadata={"c": "d"})).metadata == {"c": "d"}
    response = await stage.client.responses.create(model="m", input="one", conversation=created.id)
    assert response.conversation is not None
    assert response.conversation.id == created.id
    async with stage.client.responses.stream(
        model="m", input="two", conversation={"id": created.id}
    ) as stream:
        await stream.until_done()
    assert stage.messages == ["zero", "one", TEXT, "two"]
    texts = ["zero", "one", TEXT, "two", TEXT]
    assert await stage.said(created.id) == texts
    newest = await conversations.items.list(created.id, limit=1)
    assert (text(newest.data[0]), newest.has_more) == (TEXT, True)
    added = await conversations.items.create(
        created.id, items=[{"role": "developer", "content": "three"}, {"role": "user", "content": "four"}]
    )
    assert [text(item) for item in added.data] == ["three", "four"]
    first = added.data[0].id
    assert first is not None
    item = await conversations.items.retrieve(first, conversation_id=created.id)
    assert item == added.data[0]
    assert (await conversations.items.delete(first, conversation_id=created.id)).id == created.id
    with pytest.raises(NotFoundError):
        await conversations.items.retrieve(first, conversation_id=created.id)
    assert await stage.said(created.id) == [*texts, "four"]
    deleted = await conversations.delete(created.id)
    assert (deleted.deleted, deleted.object) == (True, "conversation.deleted")
    for gone in (conversations.retrieve(created.id), stage.client.responses.retrieve(response.id)):
        with pytest.raises(NotFoundError):
            await gone


async def test_one_response_at_a_time_is_given_in_a_conversation(stage: Stage) -> None:
    conversation_id = await stage.conversation()
    create: Any = stage.client.responses.create
    stream = await create(
        model="m", input="one", conversation=conversation_id, stream=True, extra_body=told(2, "hang")
    )
    await anext(aiter(stream))
    with pytest.raises(ConflictError) as refused:
        await create(model="m", input="two", conversation=conversation_id)
    assert (refused.value.code, refused.value.param) == ("conversation_locked", "conversation")
    await stream.close()

    async def free() -> bool:
        try:
            return bool(await create(model="m", input="two", conversation=conversation_id))
        except ConflictError:
            return False

    await eventually(free)
    assert await stage.said(conversation_id) == ["two", TEXT]


async def test_nobody_sees_what_is_anothers(stage: Stage) -> None:
    response = await stage.client.responses.create(model="m", input="hi")
    conversation_id = await stage.conversation(items=[{"role": "user", "content": "x"}])
    (item,) = (await stage.client.conversations.items.list(conversation_id)).data
    assert item.id is not None
    async with openai_client(stage.url, replace(stage.signer, account="other")) as other:
        create: Any = other.responses.create
        for doing in (
            other.responses.retrieve(response.id),
            other.responses.delete(response.id),
            other.responses.cancel(response.id),
            other.responses.input_items.list(response.id),
            other.conversations.retrieve(conversation_id),
            other.conversations.update(conversation_id, metadata={}),
            other.conversations.items.list(conversation_id),
            other.conversations.items.create(conversation_id, items=[{"role": "user", "content": "x"}]),
            other.conversations.items.retrieve(item.id, conversation_id=conversation_id),
            other.conversations.items.delete(item.id, conversation_id=conversation_id),
            other.conversations.delete(conversation_id),
            create(model="m", input="x", conversation=conversation_id),
            create(model="m", input=[{"type": "item_reference", "id": item.id}]),
        ):
            with pytest.raises(NotFoundError):
                await doing
        with pytest.raises(BadRequestError):
            await create(model="m", input="x", previous_response_id=response.id)
    assert await stage.said(conversation_id) == ["x"]


async def test_wrong_requests_are_bad_requests(stage: Stage) -> None:
    create: Any = stage.client.responses.create
    for fields, param in (
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        ({"metadata": {"k": "v" * 600}}, "metadata"),
        ({"extra_body": {"n": 2}}, "n"),
        ({"model": ""}, "model"),
        ({"input": "x" * 15_000, "instructions": "x" * 4_930}, None),
    ):
        with pytest.raises(BadRequestError) as refused:
            await create(**{"model": "m", "input": "hi", **fields})
        assert refused.value.param == param
    assert refused.value.code == "context_length_exceeded"  # as a chat completion it would be too large
    response = await create(model="m", input="hi")
    with pytest.raises(BadRequestError, match="Cannot cancel a synchronous response"):
        await stage.client.responses.cancel(response.id)
    with pytest.raises(BadRequestError) as refused:
        await stage.client.responses.retrieve(response.id, stream=True)
    assert refused.value.param == "stream"
    with pytest.raises(NotFoundError) as refused_after:
        await stage.client.responses.input_items.list(response.id, after="msg_x")
    assert refused_after.value.param == "after"
    many: Any = [{"role": "user", "content": "x"}] * 21
    with pytest.raises(BadRequestError) as refused:
        await stage.client.conversations.create(items=many)
    assert refused.value.param == "items"
    used = await stage.used()
    assert len([one for one in used if not one]) == 7  # each is let go of
    assert len(used) == 8


async def test_a_stream_ends_without_a_mark(stage: Stage) -> None:
    async with aiohttp.ClientSession() as session:
        body = {"model": "m", "input": "hi", "stream": True}
        headers = stage.signer.headers("POST /v1/responses")
        async with session.post(f"{stage.url}/v1/responses", json=body, headers=headers) as answer:
            said = await answer.text()
    assert answer.content_type == "text/event-stream"
    assert answer.headers["x-accel-buffering"] == "no"
    assert "[DONE]" not in said
    assert said.rpartition("event: ")[2].startswith("response.completed\ndata: {")


async def test_a_real_model_answers(
    base_settings: dict[str, Any], signer: Signer, database: Database, sidecar: str
) -> None:
    kept = {**base_settings, "nats_url": "nats://127.0.0.1:1", "inference_url": sidecar}
    create: Any
    async with (
        serving("chat", create_app, Settings(**kept)) as server,
        openai_client(f"http://127.0.0.1:{server.http_port}", signer) as client,
    ):
        create = client.responses.create
        asked = {"model": MODEL, "input": "Count from one to twenty in words.", "temperature": 0}
        first = await create(**asked, max_output_tokens=8, extra_body={"ignore_eos": True})
        assert first.status == "incomplete"
        assert first.incomplete_details.reason == "max_output_tokens"
        assert (first.usage.output_tokens, bool(first.output_text)) == (8, True)
        async with client.responses.stream(
            model=MODEL,
            input="Go on.",
            previous_response_id=first.id,
            include=["message.output_text.logprobs"],
            top_logprobs=2,
            max_output_tokens=64,
        ) as stream:
            seen = [one async for one in stream]
        final: Any = seen[-1]
        assert final.type in ("response.completed", "response.incomplete")
        deltas: list[Any] = [one for one in seen if one.type == "response.output_text.delta"]
        assert "".join(one.delta for one in deltas) == final.response.output_text
        tokens = final.response.output[0].content[0].logprobs
        assert len(tokens) == sum(len(one.logprobs) for one in deltas) > 0
        assert all(len(token.top_logprobs) == 2 for token in tokens)
        assert final.response.usage.input_tokens > first.usage.input_tokens + 8
        schema = {"type": "object", "properties": {"a": {"enum": ["p"]}}, "required": ["a"]}
        text = {"format": {"type": "json_schema", "name": "n", "schema": schema, "strict": True}}
        assert json.loads((await create(**asked, text=text, max_output_tokens=32)).output_text) == {"a": "p"}
