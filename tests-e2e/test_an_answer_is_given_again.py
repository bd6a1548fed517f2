"""A deterministic request that is made again, and wants the cache, is answered from it at another price."""

import pytest

from dozen_testing.conditions import eventually
from journey import CHAT_MODEL, HELLO, NANO_CREDITS, Access, Operator


@pytest.mark.parametrize("streamed", [False, True], ids=["plain", "streamed"])
async def test_from_the_cache(streamed: bool, access: Access, operator: Operator) -> None:
    account = await operator.open_account(NANO_CREDITS)
    body = {"model": CHAT_MODEL, "messages": HELLO, "max_tokens": 8, "temperature": 0, "stream": streamed}
    asked = 0
    async with access.http(account.key) as http:

        async def ask(**headers: str) -> tuple[bytes, str | None]:
            nonlocal asked
            asked += 1
            answer = await http.post("/chat/completions", json=body, headers=headers)
            assert answer.is_success, answer.text
            return answer.content, answer.headers.get("x-dozen-cache")

        misses: list[bytes] = []

        async def hit() -> bytes:
            content, outcome = await ask(**{"x-cache": "on"})
            if outcome == "hit":
                return content
            assert outcome == "miss"
            misses.append(content)
            return b""

        again = await eventually(hit)  # an answer is kept once it is given, so the second may come too early
        assert again in misses
        other, outcome = await ask()
        assert outcome is None
        assert other not in misses  # for it has an id of its own
    rows = await access.charged(account.key, asked)
    hits = [row for row in rows if "cache_hits" in row["quantities"]]
    assert [(row["quantities"], row["nano_credits"]) for row in hits] == [({"cache_hits": 1}, 1000)]
    assert all(row["quantities"]["output_tokens"] == 8 for row in rows if row not in hits)
