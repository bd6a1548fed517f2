"""The official clients, admitted as if they came through the gateway."""

from typing import TYPE_CHECKING

import httpx
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from dozen_testing.http import Signer

if TYPE_CHECKING:
    import httpx2
    from anthropic import AsyncAnthropic


def openai_client(url: str, signer: Signer) -> AsyncOpenAI:
    """Give OpenAI's client of a service at a base URL such as `http://127.0.0.1:8110`; it does not retry."""

    async def admit(request: httpx.Request) -> None:
        request.headers.update(signer.headers(f"{request.method} {request.url.path}"))

    return AsyncOpenAI(
        base_url=f"{url}/v1",
        api_key="not looked at behind the gateway",
        max_retries=0,
        http_client=DefaultAsyncHttpxClient(event_hooks={"request": [admit]}),
    )


def anthropic_client(url: str, signer: Signer) -> "AsyncAnthropic":
    """Give Anthropic's client of a service at a base URL; it does not retry."""
    import anthropic  # two seconds, which only those pay who ask

    async def admit(request: "httpx2.Request") -> None:
        request.headers.update(signer.headers(f"{request.method} {request.url.path}"))

    return anthropic.AsyncAnthropic(
        base_url=url,
        api_key="not looked at behind the gateway",
        max_retries=0,
        http_client=anthropic.DefaultAsyncHttpxClient(event_hooks={"request": [admit]}),
    )
