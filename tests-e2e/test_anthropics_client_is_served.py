"""Anthropic's official client speaks to models that do not know its API."""

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from journey import CHAT_MODEL, NANO_CREDITS, Access, Account, Operator

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from anthropic.types import MessageParam

OPERATION = "POST /v1/messages"
SYSTEM = "You are a helpful guide."
DETERMINISTIC = {"temperature": 0}  # which the client no longer knows
QUESTION: "list[MessageParam]" = [{"role": "user", "content": "Which city is the capital of France?"}]


@pytest.fixture
async def account(operator: Operator) -> Account:
    """An account with credits."""
    return await operator.open_account(NANO_CREDITS)


@pytest.fixture
async def client(access: Access, account: Account) -> "AsyncIterator[AsyncAnthropic]":
    """Anthropic's client; the key goes into the header `x-api-key`."""
    async with _client(access, account.key) as client:
        yield client


def _client(access: Access, key: str) -> "AsyncAnthropic":
    import anthropic  # two seconds, which only these pay

    return anthropic.AsyncAnthropic(base_url=access.url, api_key=key, max_retries=0)


async def test_a_message_is_answered_and_streamed(
    client: "AsyncAnthropic", access: Access, account: Account
) -> None:
    raw = await client.messages.with_raw_response.create(
        model=CHAT_MODEL, messages=QUESTION, max_tokens=24, system=SYSTEM, extra_body=DETERMINISTIC
    )
    message = await raw.parse()
    assert message.content[0].type == "text"
    assert "Paris" in message.content[0].text
    assert message.stop_reason in ("end_turn", "max_tokens")
    assert raw.headers["request-id"].startswith("req_")
    async with client.messages.stream(
        model=CHAT_MODEL, messages=QUESTION, max_tokens=24, system=SYSTEM, extra_body=DETERMINISTIC
    ) as stream:
        pieces = [text async for text in stream.text_stream]
        final = await stream.get_final_message()
    assert len(pieces) > 3
    assert "".join(pieces) == message.content[0].text
    rows = await access.charged(account.key, 2)
    assert {row["operation"] for row in rows} == {OPERATION}
    assert [row["quantities"]["output_tokens"] for row in rows] == [
        final.usage.output_tokens,
        message.usage.output_tokens,
    ]


async def test_errors_are_those_of_anthropic(client: "AsyncAnthropic", access: Access) -> None:
    import anthropic

    async with _client(access, "dz-demo-nokey-nosecret") as stranger:
        with pytest.raises(anthropic.AuthenticationError) as unknown:
            await stranger.messages.create(model=CHAT_MODEL, messages=QUESTION, max_tokens=8)
    with pytest.raises(anthropic.NotFoundError) as missing:
        await client.messages.create(model="claude-nothing", messages=QUESTION, max_tokens=8)
    with pytest.raises(anthropic.BadRequestError) as wrong:
        await client.messages.create(model=CHAT_MODEL, messages=[], max_tokens=8)
    for caught, kind in (
        (unknown, "authentication_error"),
        (missing, "not_found_error"),
        (wrong, "invalid_request_error"),
    ):
        body = caught.value.body
        assert isinstance(body, dict)
        assert (body["type"], body["error"]["type"]) == ("error", kind)
        assert (caught.value.request_id or "").startswith("req_")
        assert body["request_id"] == caught.value.request_id
