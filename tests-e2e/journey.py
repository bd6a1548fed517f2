"""What the journeys are made of: clients of the platform, accounts of their own, and its operator."""

import secrets
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from dozen.credits.v1.credits_service_pb2 import GrantRequest, OpenAccountRequest
from dozen.credits.v1.credits_service_pb2_grpc import CreditsServiceStub
from dozen.gateway.v1.gateway_service_pb2 import CreateApiKeyRequest, KeyTerms
from dozen.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from dozen_chassis.grpc import open_channel
from dozen_local.bootstrap import OPERATOR
from dozen_local.credentials import Credentials
from dozen_local.layout import SERVICE_PORTS, Layout
from dozen_local.platform import Platform
from dozen_local.ports import is_free
from dozen_testing.conditions import eventually

CHAT_MODEL = "smollm2-135m-instruct"
NANO_CREDITS = 1_000_000_000
Settings = Mapping[str, Mapping[str, str]]
"""Further environment variables of services, by their names."""
Models = Callable[[Layout], Sequence[Mapping[str, Any]]]
"""Further models of a catalogue, with the addresses of a deployment."""
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]


def ignore(step: str, state: str) -> None:
    """Report to nobody."""


@contextmanager
def temporary_platform(
    settings: Settings | None = None, models: Models = lambda layout: ()
) -> Iterator[Platform]:
    """Run a platform on free ports for the block, then delete it."""
    with unstarted_platform(settings, models) as platform:
        platform.up(ignore)
        yield platform


@contextmanager
def unstarted_platform(
    settings: Settings | None = None, models: Models = lambda layout: ()
) -> Iterator[Platform]:
    """Give a platform of which nothing runs yet; stop after the block what does, and delete it."""
    with tempfile.TemporaryDirectory(prefix="dozen-e2e-") as directory:
        home = Path(directory)
        home.chmod(0o755)  # the user that PostgreSQL runs as passes through
        layout = Layout(home, _free_port_offset())
        credentials = Credentials.open(layout.credentials_file)
        platform = Platform(layout, credentials, settings, models(layout))
        layout.save()
        try:
            yield platform
        finally:
            platform.down()
            platform.postgres.remove()


def _free_port_offset() -> int:
    """Find an offset at which no port of a deployment is taken."""
    ports = [port for pair in SERVICE_PORTS.values() for port in pair]
    return next(
        offset for offset in range(10_000, 50_000, 1_000) if all(is_free(port + offset) for port in ports)
    )


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

    async def charged(self, key: str, requests: int) -> list[dict[str, Any]]:
        """Wait until so many requests of an account are charged, and no more; give them, newest first."""

        async def rows() -> list[dict[str, Any]]:
            answer = await http.get("/usage/requests", params={"limit": 100})
            found: list[dict[str, Any]] = answer.json().get("data", [])
            assert len(found) <= requests, found
            return found if len(found) == requests else []

        async with self.http(key) as http:
            return await eventually(rows)


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
            request = OpenAccountRequest(account_id=account, name="Journey")
            await CreditsServiceStub(channel).OpenAccount(request, timeout=10)
        if nano_credits:
            await self.grant(account, nano_credits, idempotency_key=account)
        async with self._channel("gateway") as channel:
            creation = CreateApiKeyRequest(account_id=account, name="journey")
            created = await GatewayServiceStub(channel).CreateApiKey(creation, timeout=10)
        return Account(account, created.secret)

    async def create_key(self, account: Account, terms: KeyTerms) -> str:
        """Make an account a key that may do only so much."""
        async with self._channel("gateway") as channel:
            creation = CreateApiKeyRequest(account_id=account.id, terms=terms)
            created = await GatewayServiceStub(channel).CreateApiKey(creation, timeout=10)
        return created.secret

    async def grant(self, account: str, nano_credits: int, *, idempotency_key: str) -> None:
        """Give an account credits, once per idempotency key."""
        request = GrantRequest(
            account_id=account,
            nano_credits=nano_credits,
            idempotency_key=idempotency_key,
            reason="journey",
        )
        async with self._channel("credits") as channel:
            await CreditsServiceStub(channel).Grant(request, timeout=10)

    def _channel(self, service: str) -> grpc.aio.Channel:
        platform = self.platform
        token = platform.credentials.token(OPERATOR, service)
        return open_channel(platform.layout.grpc_address(service), token)
