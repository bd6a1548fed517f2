"""A client that leaves stops the model behind both services at once, and pays for what was generated."""

import asyncio
import re
import time

import httpx
import pytest

from dozen_local.platform import Platform
from journey import CHAT_MODEL, NANO_CREDITS, Access, Operator

LONG = "Tell me a very long story about the sea."
MOST_SECONDS = 1.0
"""Between the client's departure and the model's rest; it takes ten milliseconds on a machine with time."""

STREAMS = {
    "/chat/completions": {"messages": [{"role": "user", "content": LONG}], "max_tokens": 1500},
    "/completions": {"prompt": "The numbers are one, two, three,", "max_tokens": 1500, "temperature": 0},
    "/responses": {"input": LONG, "max_output_tokens": 1500},
    "/messages": {"messages": [{"role": "user", "content": LONG}], "max_tokens": 1500},
}


@pytest.mark.parametrize("path", STREAMS)
async def test_in_the_middle_of_a_stream(
    path: str, access: Access, operator: Operator, local_platform: Platform
) -> None:
    account = await operator.open_account(NANO_CREDITS)
    body = {"model": CHAT_MODEL, "stream": True, **STREAMS[path]}
    async with access.http(account.key) as http, _Model(local_platform) as model:
        async with http.stream("POST", path, json=body) as answer:
            assert answer.is_success
            events = 0
            async for line in answer.aiter_lines():
                events += line.startswith("data:")
                if events == 20:
                    break
            assert await model.works()
            left = time.monotonic()
        await model.rests()
        assert time.monotonic() - left < MOST_SECONDS
    (row,) = await access.charged(account.key, 1)
    assert 10 <= row["quantities"]["output_tokens"] < 500
    assert row["nano_credits"] > 0


class _Model:
    """The server of the model, of which we ask what it does."""

    def __init__(self, platform: Platform) -> None:
        self._http = httpx.AsyncClient(base_url=f"http://127.0.0.1:{platform.layout.llama_port}")

    async def __aenter__(self) -> "_Model":
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._http.aclose()

    async def works(self) -> bool:
        """Tell whether it works on a request."""
        metrics = (await self._http.get("/metrics")).text
        (processing,) = re.findall(r"^llamacpp:requests_processing (\d+)", metrics, re.MULTILINE)
        return int(processing) > 0

    async def rests(self) -> None:
        """Wait until it works on nothing."""
        async with asyncio.timeout(10 * MOST_SECONDS):
            while await self.works():
                pass
