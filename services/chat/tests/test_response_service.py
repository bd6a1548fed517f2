"""Use cases of responses and conversations, on chat completions that are as they are told to be."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from dozen_chassis.admission import Admission
from dozen_chassis.errors import InvalidRequest, ServiceError
from dozen_chat.domain.turns import MAX_CHAIN, MAX_CONVERSATION_ITEMS, Selection, StoredItem
from dozen_chat.errors import (
    ContextTooLong,
    ConversationLocked,
    ConversationNotFound,
    ItemNotFound,
    PreviousResponseNotFound,
    ResponseNotCancellable,
    ResponseNotFound,
)
from dozen_chat.service.contexts import Contexts
from dozen_chat.service.conversations import ConversationsService
from dozen_chat.service.responses import ResponsesService
from dozen_inference.generation import Answer
from dozen_inference.upstream import UpstreamFailed, UpstreamTimeout
from dozen_testing.conditions import eventually

WHOLE = json.dumps(
    {
        "choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2},
    }
).encode()


def event(**data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def delta(content: str, finish: str | None = None) -> bytes:
    return event(choices=[{"delta": {"content": content}, "finish_reason": finish}])


STREAM = [delta("Hel"), delta("lo"), delta("", "stop"), b"data: [DONE]\n\n"]


@dataclass
class FakeCompletions:
    """Gives the same chunks to each request, then raises or hangs where it is told to."""

    chunks: Sequence[bytes] = ()
    error: ServiceError | None = None
    hangs: bool = False
    asked: list[dict[str, Any]] = field(default_factory=list)
    caches: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    given: asyncio.Event = field(default_factory=asyncio.Event)

    def complete(self, admitted: Admission, body: bytes, cache: str = "") -> Answer:
        self.asked.append(json.loads(body))
        self.caches.append(cache)
        headers: dict[str, str] = {}
        stream = bool(self.asked[-1].get("stream"))
        return Answer(stream, self._give(self.chunks or (STREAM if stream else [WHOLE]), headers), headers)

    async def _give(self, chunks: Sequence[bytes], headers: dict[str, str]) -> AsyncGenerator[bytes, None]:
        try:
            for chunk in chunks:
                headers["x-model"] = "m"
                yield chunk
            self.given.set()
            if self.error is not None:
                raise self.error
            if self.hangs:
                await asyncio.Event().wait()
        except BaseException as problem:
            self.ended.append(type(problem).__name__)
            raise
        self.ended.append("end")


class Stage:
    """The services with everything around them."""

    def __init__(self, responses: Any, admission: Admission) -> None:
        self.chat = FakeCompletions()
        self.stored = responses
        self.talks = responses.conversations
        self.admission = admission
        self.contexts = contexts = Contexts(responses, self.talks, 2000)
        clock = iter(range(100, 10_000, 100)).__next__
        self.responses = ResponsesService(
            self.chat, responses, contexts, responses, most_bytes=2000, clock=clock
        )
        self.conversations = ConversationsService(self.talks, contexts)

    async def ask(self, given: Any = "hi", **fields: Any) -> dict[str, Any]:
        """Give a whole response."""
        body = json.dumps({"model": "m", "input": given, **fields}).encode()
        answer = self.responses.create(self.admission, body)
        (chunk,) = [chunk async for chunk in answer.chunks]
        response: dict[str, Any] = json.loads(chunk)
        return response

    def stream(self, **fields: Any) -> Answer:
        body = json.dumps({"model": "m", "input": "hi", "stream": True, **fields}).encode()
        return self.responses.create(self.admission, body)

    async def events(self, **fields: Any) -> list[dict[str, Any]]:
        """Give the events of a streamed response."""
        return events(b"".join([chunk async for chunk in self.stream(**fields).chunks]))

    async def find(self, response_id: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(await self.responses.find("acme", response_id))
        return found

    async def said(self, conversation_id: str) -> list[str]:
        """Give the texts of a conversation."""
        items = [json.loads(body) for _, body in await self.talks.items(conversation_id)]
        return [item["content"][0]["text"] for item in items]

    async def input_texts(self, response_id: str, *selection: Any) -> tuple[list[str], bool]:
        items, has_more = await self.responses.input_items("acme", response_id, Selection(*selection))
        return [item.content[0].text for item in items], has_more  # type: ignore[union-attr,index]

    @property
    def messages(self) -> list[Any]:
        """What the model was last told."""
        messages: list[Any] = [message["content"] for message in self.chat.asked[-1]["messages"]]
        return messages


def events(text: bytes) -> list[dict[str, Any]]:
    parts = text.removesuffix(b"\n\n").split(b"\n\n")
    return [json.loads(part.partition(b"\ndata: ")[2]) for part in parts]


@pytest.fixture
def stage(fake_responses: Any, admission: Admission) -> Stage:
    return Stage(fake_responses, admission)


async def test_a_response_is_given_and_stored(stage: Stage) -> None:
    response = await stage.ask(instructions="Be brief.", temperature=0)
    assert response["output"][0]["content"][0]["text"] == "Hello"
    assert (response["status"], response["created_at"], response["completed_at"]) == ("completed", 100, 200)
    assert response["usage"]["total_tokens"] == 5
    assert await stage.find(response["id"]) == response
    assert stage.chat.asked == [
        {
            "model": "m",
            "temperature": 0,
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        }
    ]
    assert stage.chat.ended == ["end"]  # so that the connection to the server is used again


async def test_the_clients_wish_and_the_headers_are_passed_on(stage: Stage) -> None:
    answer = stage.responses.create(stage.admission, b'{"model":"m","input":"hi"}', "refresh")
    async with aclosing(answer.chunks) as chunks:
        await anext(chunks)
    assert stage.chat.caches == ["refresh"]
    assert answer.headers == {"x-model": "m"}


async def test_a_stream_is_stored_before_its_end(stage: Stage) -> None:
    stored = []
    said = b""
    async for chunk in stage.stream().chunks:
        stored.append(len(stage.stored.turns))
        said += chunk
    assert stored == [0, 0, 0, 1] or stored == [0, 0, 1]
    final = events(said)[-1]
    assert final["type"] == "response.completed"
    assert await stage.find(final["response"]["id"]) == final["response"]
    assert stage.chat.ended == ["end"]


async def test_events_may_be_split_anywhere(stage: Stage) -> None:
    whole = await stage.events()
    text = b"".join(STREAM)
    stage.chat.chunks = [text[index : index + 1] for index in range(len(text))]
    split = await stage.events()
    assert [one["type"] for one in split] == [one["type"] for one in whole]
    stage.chat.chunks = [text]
    assert [one["type"] for one in await stage.events()] == [one["type"] for one in whole]


async def test_what_is_not_to_be_stored_is_not(stage: Stage) -> None:
    response = await stage.ask(store=False)
    with pytest.raises(ResponseNotFound):
        await stage.responses.find("acme", response["id"])
    with pytest.raises(PreviousResponseNotFound):
        await stage.ask(previous_response_id=response["id"])


async def test_a_chain_goes_on_without_its_instructions(stage: Stage) -> None:
    first = await stage.ask("one", instructions="Shout.")
    second = await stage.ask("two", previous_response_id=first["id"])
    assert stage.messages == ["one", "Hello", "two"]
    third = await stage.ask("three", previous_response_id=second["id"], instructions="Whisper.")
    assert stage.messages == ["Whisper.", "one", "Hello", "two", "Hello", "three"]
    assert third["previous_response_id"] == second["id"]
    assert await stage.input_texts(third["id"], 2) == (["three", "Hello"], True)
    assert await stage.input_texts(third["id"], 20, None, True) == (
        ["one", "Hello", "two", "Hello", "three"],
        False,
    )
    await stage.ask("other", previous_response_id=first["id"])
    assert stage.messages == ["one", "Hello", "other"]


async def test_a_chain_goes_on_from_what_was_deleted_after(stage: Stage) -> None:
    first = await stage.ask("one")
    second = await stage.ask("two", previous_response_id=first["id"])
    await stage.responses.delete("acme", first["id"])
    with pytest.raises(ResponseNotFound):
        await stage.responses.find("acme", first["id"])
    with pytest.raises(PreviousResponseNotFound):
        await stage.ask(previous_response_id=first["id"])
    await stage.ask("three", previous_response_id=second["id"])
    assert stage.messages == ["one", "Hello", "two", "Hello", "three"]


async def test_a_chain_of_which_something_is_gone_is_gone(stage: Stage) -> None:
    first = await stage.ask("one")
    second = await stage.ask("two", previous_response_id=first["id"])
    del stage.stored.turns[first["id"]]
    with pytest.raises(PreviousResponseNotFound) as refused:
        await stage.ask("three", previous_response_id=second["id"])
    assert refused.value.param == "previous_response_id"
    with pytest.raises(ResponseNotFound):
        await stage.responses.input_items("acme", second["id"], Selection())


async def test_what_was_said_has_a_limit(stage: Stage) -> None:
    with pytest.raises(ContextTooLong):
        await stage.ask("x" * 2001)
    long = await stage.ask("x" * 1000)
    with pytest.raises(ContextTooLong):
        await stage.ask("y" * 1000, previous_response_id=long["id"])
    assert not stage.chat.asked[1:]
    stage.chat.chunks = [WHOLE.replace(b"Hello", b"x" * 9000)]
    long = await stage.ask()
    with pytest.raises(ContextTooLong):  # which is not even read
        await stage.ask(previous_response_id=long["id"])
    stage.chat.chunks = []
    last = None
    for _ in range(12):
        last = (await stage.ask("z", previous_response_id=last))["id"]
    one = next(iter(stage.stored.turns.values()))
    for index in range(MAX_CHAIN):
        previous = f"resp_{index - 1}" if index else None
        stage.stored.turns[f"resp_{index}"] = type(one)(
            "acme", f"resp_{index}", previous, None, 0, 1, b"[]", b"[]", b"{}"
        )
    with pytest.raises(ContextTooLong):
        await stage.ask(previous_response_id=f"resp_{MAX_CHAIN - 1}")


async def test_items_may_be_referred_to(stage: Stage) -> None:
    first = await stage.ask("one")
    conversation = await stage.conversations.create("acme", None, [{"role": "user", "content": "two"}])
    (item,), _ = await stage.conversations.page("acme", conversation.id, Selection())
    references = [
        {"type": "item_reference", "id": first["output"][0]["id"]},
        {"type": "item_reference", "id": item.id},
        {"role": "user", "content": "three"},
    ]
    second = await stage.ask(references)
    assert stage.messages == ["Hello", "two", "three"]
    assert await stage.input_texts(second["id"], 20, None, True) == (["Hello", "two", "three"], False)
    stage.admission = Admission("other", "key1", "req_2", stage.admission.operation, {})
    for unknown in (item.id, first["output"][0]["id"], "msg_x"):
        with pytest.raises(ItemNotFound) as refused:
            await stage.ask([{"type": "item_reference", "id": unknown}])
        assert refused.value.param == "input"


async def test_wrong_requests_are_refused(stage: Stage) -> None:
    with pytest.raises(InvalidRequest) as refused:
        stage.responses.create(stage.admission, b'{"model":"m","input":"x","background":true}')
    assert refused.value.param == "background"
    with pytest.raises(InvalidRequest, match="No tool call found"):
        await stage.ask([{"type": "function_call_output", "call_id": "c", "output": "x"}])
    with pytest.raises(InvalidRequest, match="nothing to answer"):
        await stage.ask([])
    assert not stage.chat.asked


async def test_an_error_before_the_first_event_is_raised(stage: Stage) -> None:
    for fields in ({}, {"stream": True}):
        stage.chat.chunks, stage.chat.error = [b""], UpstreamTimeout()
        with pytest.raises(UpstreamTimeout):
            await stage.ask(**fields)
    stage.chat.chunks, stage.chat.error = [b"data: <html>\n\n"], None
    with pytest.raises(UpstreamFailed):
        await stage.events()
    with pytest.raises(UpstreamFailed):
        await stage.ask()
    stage.chat.chunks = [b": ping\n\n"]
    with pytest.raises(UpstreamFailed):
        await stage.events()
    assert not stage.stored.turns


@pytest.mark.parametrize(
    ("last", "code"),
    [
        (
            event(error={"message": "It broke.", "type": "server_error", "param": None, "code": "broken"}),
            "broken",
        ),
        (b"data: {]\n\n", "upstream_error"),
        (b"", "upstream_error"),
    ],
)
async def test_a_stream_that_breaks_is_stored_as_failed(stage: Stage, last: bytes, code: str) -> None:
    conversation = await stage.conversations.create("acme", None, None)
    stage.chat.chunks = [delta("Hel"), last]
    *_, error, failed = await stage.events(conversation=conversation.id)
    assert (error["type"], error["code"]) == ("error", code)
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"]["code"] == "server_error"
    assert await stage.find(failed["response"]["id"]) == failed["response"]
    assert await stage.said(conversation.id) == []
    assert not stage.talks.turns


async def test_an_answer_that_only_forgot_its_end_is_complete(stage: Stage) -> None:
    stage.chat.chunks = STREAM[:-1]
    assert (await stage.events())[-1]["type"] == "response.completed"
    stage.chat.chunks = [delta("Hel"), delta("", "content_filter")]
    final = (await stage.events())[-1]
    assert final["response"]["incomplete_details"] == {"reason": "content_filter"}


async def test_a_stream_whose_client_leaves_is_stored_as_cancelled(stage: Stage) -> None:
    stage.chat.chunks, stage.chat.hangs = STREAM[:2], True
    conversation = await stage.conversations.create("acme", None, None)
    answer = stage.stream(conversation={"id": conversation.id})
    said = await anext(answer.chunks) + await anext(answer.chunks)
    waiting = asyncio.ensure_future(anext(answer.chunks))
    await stage.chat.given.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert stage.chat.ended == ["CancelledError"]  # which settles and stops the server
    response = await stage.find(events(said)[0]["response"]["id"])
    assert (response["status"], response["output"][0]["status"]) == ("cancelled", "incomplete")
    assert response["output"][0]["content"][0]["text"] == "Hello"
    assert await stage.said(conversation.id) == []
    assert not stage.talks.turns
    stage.chat.chunks, stage.chat.hangs = [], False
    await stage.ask("Go on.", previous_response_id=response["id"])
    assert stage.messages == ["hi", "Hello", "Go on."]


async def test_a_stream_may_be_left_between_two_chunks(stage: Stage) -> None:
    answer = stage.stream()
    said = await anext(answer.chunks)
    await answer.chunks.aclose()
    assert stage.chat.ended == ["GeneratorExit"]
    response = await stage.find(events(said)[0]["response"]["id"])
    assert (response["status"], response["output"][0]["content"][0]["text"]) == ("cancelled", "Hel")


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_may_leave_while_its_response_is_stored(stage: Stage, stream: bool) -> None:
    stage.stored.gate.clear()
    asking = asyncio.ensure_future(stage.events() if stream else stage.ask())

    async def storing() -> bool:
        return bool(stage.stored.waiting)

    await eventually(storing)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    stage.stored.gate.set()
    await asyncio.gather(*stage.stored.waiting)
    (turn,) = stage.stored.turns.values()
    assert (await stage.find(turn.response_id))["status"] == "completed"
    assert len(stage.stored.waiting) == 1  # it was not stored again as cancelled


async def test_a_whole_answer_that_nobody_waits_for_is_not_stored(stage: Stage) -> None:
    conversation = await stage.conversations.create("acme", None, None)
    stage.chat.chunks, stage.chat.hangs = [b""], True
    asking = asyncio.ensure_future(stage.ask(conversation=conversation.id))
    await stage.chat.given.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert not stage.stored.turns
    assert not stage.talks.turns


async def test_a_conversation_has_what_was_asked_and_answered(stage: Stage) -> None:
    conversation = await stage.conversations.create("acme", {"a": "b"}, [{"role": "user", "content": "zero"}])
    first = await stage.ask("one", conversation=conversation.id)
    assert first["conversation"] == {"id": conversation.id}
    await stage.ask("two", conversation={"id": conversation.id}, store=False)
    assert stage.messages == ["zero", "one", "Hello", "two"]
    assert await stage.said(conversation.id) == ["zero", "one", "Hello", "two", "Hello"]
    assert await stage.input_texts(first["id"], 20, None, True) == (["zero", "one"], False)
    await stage.ask("three", previous_response_id=first["id"])  # beside the conversation
    assert stage.messages == ["zero", "one", "Hello", "three"]
    await stage.events(conversation=conversation.id)
    assert stage.messages == ["zero", "one", "Hello", "two", "Hello", "hi"]


async def test_one_response_at_a_time_is_given_in_a_conversation(stage: Stage) -> None:
    conversation = await stage.conversations.create("acme", None, None)
    stage.chat.hangs = True
    answer = stage.stream(conversation=conversation.id)
    await anext(answer.chunks)
    for doing in (
        stage.ask("two", conversation=conversation.id),
        stage.conversations.add_items("acme", conversation.id, [{"role": "user", "content": "x"}]),
    ):
        with pytest.raises(ConversationLocked) as refused:
            await doing
        assert refused.value.http.status == 409
    await answer.chunks.aclose()
    stage.chat.hangs = False
    await stage.ask("two", conversation=conversation.id)
    assert await stage.said(conversation.id) == ["two", "Hello"]


async def test_a_conversation_is_held_on_while_a_response_is_given(stage: Stage) -> None:
    conversation = await stage.conversations.create("acme", None, None)
    await stage.contexts.keep_turns()
    assert stage.talks.held_on == []
    stage.chat.hangs = True
    answer = stage.stream(conversation=conversation.id)
    response_id = events(await anext(answer.chunks))[0]["response"]["id"]
    await stage.contexts.keep_turns()
    assert stage.talks.held_on == [response_id]
    await answer.chunks.aclose()
    await stage.contexts.keep_turns()
    assert stage.talks.held_on == [response_id]


async def test_a_request_that_is_refused_does_not_hold_its_conversation(stage: Stage) -> None:
    conversation = await stage.conversations.create("acme", None, None)
    with pytest.raises(InvalidRequest):
        await stage.ask([], conversation=conversation.id)
    with pytest.raises(ConversationNotFound):
        await stage.ask(conversation="conv_unknown")
    assert not stage.talks.turns


async def test_a_conversation_has_a_limit(stage: Stage) -> None:
    conversation = await stage.conversations.create("acme", None, None)
    with pytest.raises(InvalidRequest) as refused:
        await stage.conversations.add_items("acme", conversation.id, [{"role": "user", "content": "x"}] * 21)
    assert refused.value.param == "items"
    with pytest.raises(ContextTooLong):
        await stage.conversations.add_items(
            "acme", conversation.id, [{"role": "user", "content": "x" * 8000}]
        )
    stage.talks.append(
        conversation.id, [StoredItem(str(one), b"{}") for one in range(MAX_CONVERSATION_ITEMS)]
    )
    with pytest.raises(ContextTooLong):
        await stage.conversations.add_items("acme", conversation.id, [{"role": "user", "content": "x"}])
    stage.talks.append(conversation.id, [StoredItem("last", b"{}")])
    with pytest.raises(ContextTooLong):
        await stage.ask(conversation=conversation.id)


async def test_conversations_and_items_are_found_changed_and_deleted(stage: Stage) -> None:
    conversation = await stage.conversations.create("acme", {"a": "b"}, None)
    assert await stage.conversations.find("acme", conversation.id) == conversation
    changed = await stage.conversations.update("acme", conversation.id, {"c": "d"})
    assert changed.metadata == {"c": "d"}
    (added,) = await stage.conversations.add_items(
        "acme", conversation.id, [{"role": "user", "content": "x", "id": "theirs"}]
    )
    assert added.id.startswith("msg_")
    assert await stage.conversations.find_item("acme", conversation.id, added.id) == added.body
    assert await stage.conversations.page("acme", conversation.id, Selection()) == ([added], False)
    with pytest.raises(ItemNotFound):
        await stage.conversations.page("acme", conversation.id, Selection(after="msg_x"))
    assert await stage.conversations.delete_item("acme", conversation.id, added.id) == changed
    for missing in (stage.conversations.find_item, stage.conversations.delete_item):
        with pytest.raises(ItemNotFound):
            await missing("acme", conversation.id, added.id)
    with pytest.raises(InvalidRequest):
        await stage.conversations.update("acme", conversation.id, {"k": "v" * 513})
    for doing in (
        stage.conversations.find("other", conversation.id),
        stage.conversations.update("other", conversation.id, {}),
        stage.conversations.delete("other", conversation.id),
        stage.conversations.page("other", conversation.id, Selection()),
        stage.conversations.add_items("other", conversation.id, []),
        stage.conversations.delete_item("other", conversation.id, added.id),
    ):
        with pytest.raises(ConversationNotFound):
            await doing
    await stage.conversations.delete("acme", conversation.id)
    with pytest.raises(ConversationNotFound):
        await stage.conversations.find("acme", conversation.id)


async def test_a_response_that_is_given_cannot_be_cancelled(stage: Stage) -> None:
    response = await stage.ask()
    with pytest.raises(ResponseNotCancellable) as refused:
        await stage.responses.cancel("acme", response["id"])
    assert refused.value.http.status == 400
    for doing in (
        stage.responses.cancel("other", response["id"]),
        stage.responses.find("other", response["id"]),
        stage.responses.delete("other", response["id"]),
        stage.responses.input_items("other", response["id"], Selection()),
    ):
        with pytest.raises(ResponseNotFound):
            await doing
    with pytest.raises(ItemNotFound):
        await stage.responses.input_items("acme", response["id"], Selection(after="msg_x"))


async def test_what_is_old_is_forgotten(stage: Stage) -> None:
    first = await stage.ask("one")
    await stage.ask("two", previous_response_id=first["id"])
    await stage.conversations.create("acme", None, None)
    await stage.responses.forget(timedelta(hours=1))
    await stage.conversations.forget(timedelta(hours=1))
    assert stage.stored.turns
    assert stage.talks.owned
    await stage.responses.forget(timedelta())
    await stage.conversations.forget(timedelta())
    assert not stage.stored.turns
    assert not stage.talks.owned
