"""What the catalogue says of a model: who stands in for it, where it is served, what it is not told."""

import asyncio

import openai
import pytest

from catalogue import ELSEWHERE, FILTERED, OUT_OF_ORDER, PRICES
from journey import HELLO, NANO_CREDITS, Access, Operator


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_another_model_answers_at_its_own_price(
    streamed: bool, access: Access, operator: Operator
) -> None:
    account = await operator.open_account(NANO_CREDITS)
    async with access.http(account.key) as http:
        body = {"model": OUT_OF_ORDER, "messages": HELLO, "max_tokens": 8, "stream": streamed}
        answers = await asyncio.gather(*(http.post("/chat/completions", json=body) for _ in range(3)))
    for answer in answers:
        assert answer.is_success, answer.text
        assert answer.headers["x-dozen-model"] == ELSEWHERE
        assert answer.headers["x-dozen-deployment"] in ("elsewhere-1", "elsewhere-2")
    for row in await access.charged(account.key, 3):
        assert row["model"] == ELSEWHERE
        assert row["quantities"]["output_tokens"] > 0
        price = PRICES[ELSEWHERE]
        assert row["nano_credits"] == sum(price[unit] * count for unit, count in row["quantities"].items())


async def test_a_harmful_prompt_is_blocked(access: Access, operator: Operator) -> None:
    account = await operator.open_account(NANO_CREDITS)
    async with access.openai(account.key) as client:
        for streamed in (False, True):
            with pytest.raises(openai.BadRequestError) as blocked:
                await client.chat.completions.create(
                    model=FILTERED,
                    messages=[{"role": "user", "content": "All members of that religion should be killed."}],
                    max_tokens=8,
                    stream=streamed,
                )
            assert blocked.value.code == "content_filter"
        passed = await client.chat.completions.with_raw_response.create(
            model=FILTERED, messages=HELLO, max_tokens=4
        )
    assert passed.parse().choices[0].finish_reason in ("length", "stop")
    (row,) = await access.charged(account.key, 1)
    assert row["request_id"] == passed.headers["x-request-id"]
