"""The staff sign in and see services, accounts, balances and usage."""

import re

import httpx

from dozen_local.environment import read_env
from dozen_local.layout import SERVICES
from dozen_local.platform import Platform
from dozen_testing.conditions import eventually
from journey import CHAT_MODEL, HELLO, NANO_CREDITS, Access, Operator


async def test_a_call_appears_on_the_page(
    access: Access, operator: Operator, local_platform: Platform
) -> None:
    account = await operator.open_account(NANO_CREDITS)
    async with access.openai(account.key, max_retries=5) as client:
        await client.chat.completions.create(model=CHAT_MODEL, messages=HELLO, max_tokens=4)
    variables = read_env(local_platform.layout.env_file)
    async with httpx.AsyncClient(base_url=variables["DOZEN_ADMIN_URL"], follow_redirects=True) as browser:
        page = await browser.get("/")
        assert "password" in page.text
        assert account.id not in page.text
        fields = dict(re.findall(r'name="([^"]+)"[^>]*value="([^"]*)"', page.text))
        fields |= {"password": variables["DOZEN_ADMIN_PASSWORD"]}
        page = await browser.post("/login", data=fields)
        assert page.status_code == 200, page.text
        for service in SERVICES:
            assert service in page.text

        async def shown() -> bool:
            return account.id in (await browser.get("/usage")).text

        await eventually(shown)
        assert account.id in (await browser.get("/accounts")).text
