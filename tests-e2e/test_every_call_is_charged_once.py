"""What calls cost is what they used, once each."""

import asyncio
from typing import Any

from journey import CHAT_MODEL, HELLO, NANO_CREDITS, Access, Operator


async def test_usage_and_balance_agree_with_the_answers(access: Access, operator: Operator) -> None:
    account = await operator.open_account(NANO_CREDITS)
    async with access.openai(account.key, max_retries=5) as client, access.http(account.key) as http:
        answers = await asyncio.gather(
            *(
                client.chat.completions.create(model=CHAT_MODEL, messages=HELLO, max_tokens=8)
                for _ in range(8)
            )
        )
        embedded = await client.embeddings.create(model="all-minilm-l6-v2", input="hello")
        usage = await access.charged(account.key, 9)
        told = [answer.usage for answer in answers if answer.usage]
        assert _sum(usage, "output_tokens") == sum(each.completion_tokens for each in told)
        assert _sum(usage, "input_tokens", "cached_input_tokens") == (
            sum(each.prompt_tokens for each in told) + embedded.usage.prompt_tokens
        )
        charged = sum(row["nano_credits"] for row in usage)
        assert charged > 0
        credits = (await http.get("/credits")).json()
        assert credits["available_nano_credits"] == NANO_CREDITS - charged
        totals = (await http.get("/usage", params={"bucket_width": "all"})).json()["data"]
        assert sum(row["nano_credits"] for row in totals) == charged
        assert sum(row["requests"] for row in totals) == 9


async def test_a_client_that_leaves_pays_for_what_it_got(access: Access, operator: Operator) -> None:
    account = await operator.open_account(NANO_CREDITS)
    async with access.openai(account.key, max_retries=5) as client:
        stream = await client.chat.completions.create(
            model=CHAT_MODEL,
            messages=[{"role": "user", "content": "Tell me a very long story about the sea."}],
            max_tokens=1000,
            stream=True,
        )
        pieces = 0
        async for _ in stream:
            pieces += 1
            if pieces == 10:
                break
        await stream.close()
        (row,) = await access.charged(account.key, 1)
        assert 5 <= row["quantities"]["output_tokens"] < 500
        assert row["estimated"]


def _sum(rows: list[dict[str, Any]], *units: str) -> int:
    return sum(row["quantities"].get(unit, 0) for row in rows for unit in units)
