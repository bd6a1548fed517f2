"""Each service is killed while calls are running: the others serve on, and nothing is charged twice."""

import asyncio
from typing import Any

import openai
import pytest

from dozen_local.layout import SERVICES
from dozen_local.platform import Platform
from dozen_testing.conditions import eventually
from journey import CHAT_MODEL, HELLO, NANO_CREDITS, Access, Operator, ignore

ON_THE_PATH = {"gateway", "chat", "embeddings"}
"""Without one of these some of the calls below cannot be answered."""


@pytest.mark.parametrize("service", SERVICES)
async def test_the_others_serve_on(
    service: str, access: Access, operator: Operator, local_platform: Platform
) -> None:
    account = await operator.open_account(NANO_CREDITS)
    async with access.openai(account.key, max_retries=5) as client, access.http(account.key) as http:
        await eventually(lambda: _answered(client))
        answered = 1
        calls = [asyncio.create_task(_answered(client)) for _ in range(6)]
        await asyncio.sleep(0)
        local_platform.processes[service].kill()
        try:
            outcomes = await asyncio.gather(*calls)
            answered += sum(outcomes)
            if service not in ON_THE_PATH:
                assert all(outcomes), f"calls failed because {service} was killed"
                assert await _answered(client)
                answered += 1
        finally:
            await asyncio.to_thread(local_platform.restart, [service], ignore)
        await eventually(lambda: _answered(client))
        answered += 1

        async def charged() -> list[dict[str, Any]]:
            response = await http.get("/usage/requests", params={"limit": 100})
            rows: list[dict[str, Any]] = response.json().get("data", []) if response.is_success else []
            return rows if len(rows) >= answered else []

        rows = await eventually(charged)
        assert len({row["request_id"] for row in rows}) == len(rows)

        async def balanced() -> bool:
            credits = (await http.get("/credits")).json()
            total = sum(row["nano_credits"] for row in await charged())
            return bool(credits["available_nano_credits"] == NANO_CREDITS - total)

        assert await eventually(balanced)


async def _answered(client: openai.AsyncOpenAI) -> bool:
    try:
        chat = client.chat.completions.create(model=CHAT_MODEL, messages=HELLO, max_tokens=4)
        embedding = client.embeddings.create(model="all-minilm-l6-v2", input="hello")
        await asyncio.gather(chat, embedding)
    except openai.APIError:
        return False
    return True
