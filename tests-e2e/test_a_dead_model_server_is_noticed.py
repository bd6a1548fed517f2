"""A model server dies and comes back; clients are told so, and nothing hangs."""

import openai

from dozen_local.platform import Platform
from dozen_testing.conditions import eventually
from journey import CHAT_MODEL, HELLO, Access, ignore


async def test_its_model_is_refused_until_it_is_back(access: Access, local_platform: Platform) -> None:
    async def refusal() -> str | None:
        try:
            await client.chat.completions.create(model=CHAT_MODEL, messages=HELLO, max_tokens=1)
        except openai.InternalServerError as error:
            return error.code
        return None

    async with access.openai() as client:
        try:
            local_platform.processes["llama"].kill()
            assert await eventually(refusal, 2) in (
                "upstream_unavailable",
                "upstream_error",
                "model_unavailable",
            )

            async def known() -> bool:
                return await refusal() == "model_unavailable"

            async def unhealthy() -> bool:
                model = await client.models.retrieve(CHAT_MODEL)
                return bool(model.model_dump()["health"] == "unhealthy")

            await eventually(known, 6)  # found by callers or probes within five seconds, then refused early
            await eventually(unhealthy, 6)
        finally:
            local_platform.restart(["llama"], ignore)

        async def served() -> bool:
            return await refusal() is None

        await eventually(served, 10)
