"""What the journeys are made of: clients of the platform, accounts of their own, and its operator."""

import secrets
from dataclasses import dataclass

import grpc.aio
import httpx
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from dozen.credits.v1.credits_service_pb2 import GrantRequest, OpenAccountRequest
from dozen.credits.v1.credits_service_pb2_grpc import CreditsServiceStub
from dozen.gateway.v1.gateway_service_pb2 import CreateApiKeyRequest
from dozen.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from dozen_chassis.grpc import open_channel
from dozen_local.bootstrap import OPERATOR
from dozen_local.platform import Platform

CHAT_MODEL = "smollm2-135m-instruct"
NANO_CREDITS = 1_000_000_000
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]


def ignore(step: str, state: str) -> None:
    """Report to nobody."""


@dataclass(frozen=True)
class Access:
    """What a client of the platform needs."""

    url: str
    key: str

    def openai(self, key: str | None = None, *, max_retries: int = 0) -> AsyncOpenAI:
        """Give the official client; it does not retry unless told."""
        return AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key or self.key, max_retries=max_retries)

    def http(self, key: str | None = None) -> httpx.AsyncClient:
        """Give an HTTP client that sends the key."""
        headers = {"authorization": f"Bearer {key or self.key}"}
        return httpx.AsyncClient(base_url=f"{self.url}/v1", headers=headers, timeout=60)


@dataclass(frozen=True)
class Account:
    """An account of a journey's own."""

    id: str
    key: str


@dataclass(frozen=True)
class Operator:
    """Does by gRPC what an operator of the platform may."""

    platform: Platform

    async def open_account(self, nano_credits: int) -> Account:
        """Open an account with credits and a key."""
        account = f"e2e{secrets.token_hex(6)}"
        async with self._channel("credits") as channel:
            credits = CreditsServiceStub(channel)
            await credits.OpenAccount(OpenAccountRequest(account_id=account, name="Journey"), timeout=10)
            if nano_credits:
                grant = GrantRequest(
                    account_id=account, nano_credits=nano_credits, idempotency_key=account, reason="journey"
                )
                await credits.Grant(grant, timeout=10)
        async with self._channel("gateway") as channel:
            request = CreateApiKeyRequest(account_id=account, name="journey")
            created = await GatewayServiceStub(channel).CreateApiKey(request, timeout=10)
        return Account(account, created.secret)

    def _channel(self, service: str) -> grpc.aio.Channel:
        platform = self.platform
        token = platform.credentials.token(OPERATOR, service)
        return open_channel(platform.layout.grpc_address(service), token)
