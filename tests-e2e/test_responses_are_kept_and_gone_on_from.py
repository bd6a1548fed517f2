"""Responses and conversations, with the official client: given, streamed, gone on from, read and deleted."""

import openai
import pytest
from openai.types.responses import ResponseCompletedEvent, ResponseTextDeltaEvent

from journey import CHAT_MODEL, NANO_CREDITS, Access, Operator

CREATION = "POST /v1/responses"


async def test_a_response_is_given_streamed_read_and_deleted(access: Access, operator: Operator) -> None:
    account = await operator.open_account(NANO_CREDITS)
    async with access.openai(account.key) as client:
        first = await client.responses.create(
            model=CHAT_MODEL, input="My name is Ada.", max_output_tokens=16, temperature=0
        )
        assert first.output_text
        stream = await client.responses.create(
            model=CHAT_MODEL,
            input="What is my name?",
            previous_response_id=first.id,
            max_output_tokens=16,
            temperature=0,
            stream=True,
        )
        events = [event async for event in stream]
        assert events[0].type == "response.created"
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert isinstance(events[-1], ResponseCompletedEvent) or events[-1].type == "response.incomplete"
        second = events[-1].response
        assert second.previous_response_id == first.id
        said = "".join(event.delta for event in events if isinstance(event, ResponseTextDeltaEvent))
        assert second.output_text == said != ""

        assert (await client.responses.retrieve(second.id)).output_text == said
        known = await client.responses.input_items.list(second.id, order="asc")
        assert [item.role for item in known.data if item.type == "message"] == ["user", "assistant", "user"]
        await client.responses.delete(second.id)
        with pytest.raises(openai.NotFoundError):
            await client.responses.retrieve(second.id)
    rows = await access.charged(account.key, 2)  # and nothing for what reads or deletes
    used = [response.usage for response in (second, first) if response.usage]
    assert [row["operation"] for row in rows] == [CREATION, CREATION]
    assert [row["quantities"]["output_tokens"] for row in rows] == [usage.output_tokens for usage in used]
    assert all(row["nano_credits"] > 0 for row in rows)


async def test_a_conversation_remembers_what_was_said(access: Access, operator: Operator) -> None:
    account, stranger = await operator.open_account(NANO_CREDITS), await operator.open_account(NANO_CREDITS)
    async with access.openai(account.key) as client, access.openai(stranger.key) as theirs:
        conversation = await client.conversations.create(metadata={"about": "names"})
        response = await client.responses.create(
            model=CHAT_MODEL,
            conversation=conversation.id,
            input="My name is Ada.",
            max_output_tokens=8,
            temperature=0,
        )
        items = [item async for item in client.conversations.items.list(conversation.id, order="asc")]
        assert [item.role for item in items if item.type == "message"] == ["user", "assistant"]
        assert items[-1].id == response.output[0].id
        with pytest.raises(openai.NotFoundError):
            await theirs.conversations.retrieve(conversation.id)
        assert (await client.conversations.delete(conversation.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.conversations.items.list(conversation.id)
    await access.charged(account.key, 1)
