"""What goes wrong reaches the official client as the exception that matches."""

import openai
import pytest
from openai import AsyncOpenAI

from journey import CHAT_MODEL, HELLO, Access, Operator


async def test_a_wrong_key(access: Access) -> None:
    async with access.openai("dz-demo-nokey-nosecret") as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.models.list()
    assert caught.value.code == "invalid_api_key"
    assert (caught.value.request_id or "").startswith("req_")
    assert "nosecret" not in caught.value.message


async def test_an_empty_balance(access: Access, operator: Operator) -> None:
    account = await operator.open_account(0)
    async with access.openai(account.key) as client:
        with pytest.raises(openai.RateLimitError) as caught:
            await client.chat.completions.create(model=CHAT_MODEL, messages=HELLO)
    assert (caught.value.code, caught.value.type) == ("insufficient_quota", "insufficient_quota")
    assert caught.value.response.headers["x-should-retry"] == "false"


async def test_an_unknown_model(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        await client.chat.completions.create(model="gpt-nothing", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")


async def test_a_model_for_something_else(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="embeddings"):
        await client.chat.completions.create(model="all-minilm-l6-v2", messages=HELLO)


@pytest.mark.parametrize("body", [b'{"model": ', b"[]", b'"text"', b"\xff\xfe"])
async def test_broken_json(access: Access, body: bytes) -> None:
    async with access.http() as http:
        response = await http.post(
            "/chat/completions", content=body, headers={"content-type": "application/json"}
        )
    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    assert response.json()["error"]["type"] == "invalid_request_error"


async def test_an_oversized_body(access: Access) -> None:
    async with access.openai() as client:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.embeddings.create(model="all-minilm-l6-v2", input="a" * 6_000_000)
    assert caught.value.status_code == 413
    assert caught.value.code == "request_too_large"


async def test_an_unknown_url(access: Access) -> None:
    async with access.http() as http:
        response = await http.post("/nothing", json={})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "unknown_url"


async def test_a_parameter_that_the_model_server_refuses(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        await client.chat.completions.create(model=CHAT_MODEL, messages="not a list")  # type: ignore[arg-type]
