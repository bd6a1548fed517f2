"""Dozen with all that a request passes: keys, limits, holds and billing, on a real PostgreSQL and NATS."""

import asyncio
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from bench.load import post
from bench.rounds import REST_CORE, SERVER_CORE
from bench.servers import databases_and_nats, start
from bench.upstream import Upstream
from dozen.credits.v1.credits_service_pb2 import GrantRequest, OpenAccountRequest
from dozen.credits.v1.credits_service_pb2_grpc import CreditsServiceStub
from dozen.gateway.v1.gateway_pb2 import RateLimits, RequestFacts
from dozen.gateway.v1.gateway_service_pb2 import CreateApiKeyRequest, DecideRequest, DecideResponse, KeyTerms
from dozen.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from dozen_chassis.grpc import open_channel
from dozen_local.bootstrap import OPERATOR
from dozen_local.platform import Platform
from dozen_testing.conditions import eventually

CHAT = "/v1/chat/completions"
_SERVICES = ("credits", "models", "chat", "gateway")
_ACCOUNTS = 8
_NANO_CREDITS = 10**15
_MANY = 10**9
"""A limit that is counted and never met."""
_AT_ONCE = 4096
"""Requests that the upstream takes; vLLM's limit is its own."""
_DECISIONS_AT_ONCE = 64
_SIGNED_SECONDS = 3600


@dataclass(frozen=True)
class Dozen:
    """A running one."""

    platform: Platform
    keys: Sequence[str]

    def pid(self, process: str) -> int:
        """Give the id of a process."""
        found = self.platform.processes[process].pid
        assert found is not None, f"{process} does not run"
        return found

    def port(self, service: str) -> int:
        """Give the HTTP port of a service."""
        return self.platform.layout.http_port(service)

    def requests(self, asked: Sequence[Mapping[str, Any]]) -> list[bytes]:
        """Give requests to the gateway, by all keys in turns."""
        return [
            post(CHAT, json.dumps(one).encode(), {"authorization": f"Bearer {key}"})
            for one, key in zip(asked, itertools.cycle(self.keys), strict=False)
        ]

    def signed_requests(self, asked: Sequence[Mapping[str, Any]]) -> list[bytes]:
        """Give requests to the chat service, signed by the gateway and good for an hour."""
        decisions = asyncio.run(decide(self.platform, self.keys, asked, _SIGNED_SECONDS))
        return [
            post(CHAT, json.dumps(one).encode(), dict(decision.admitted.admission.headers))
            for one, decision in zip(asked, decisions, strict=True)
        ]


@contextmanager
def dozen(upstream: Upstream, models: Sequence[str], *, without_chat: bool = False) -> Iterator[Dozen]:
    """Run the services of the path for the block: gateway and chat on a core of their own.

    Without chat, the gateway sends what it admits straight to the upstream.
    """
    settings = {"chat": {"DOZEN_INFERENCE_URL": upstream.url, "DOZEN_MAX_REQUESTS": str(_AT_ONCE)}}
    with databases_and_nats(_SERVICES, settings=settings) as platform:
        address = upstream.url if without_chat else platform.layout.http_address("chat")
        catalogue = {"models": [_model(name, address, f"{upstream.url}/health") for name in models]}
        platform.layout.catalogue_file.write_text(yaml.safe_dump(catalogue))
        for name in _SERVICES:
            if not (without_chat and name == "chat"):
                aside = name in ("credits", "models")
                start(platform.processes[name], core=REST_CORE if aside else SERVER_CORE)
        keys = asyncio.run(_keys(platform))
        asyncio.run(_until_admitted(platform, keys, models))
        yield Dozen(platform, keys)


def _model(name: str, address: str, health_url: str) -> Mapping[str, object]:
    deployment = {
        "id": f"{name}-chat",
        "service": "chat",
        "address": address,
        "health_url": health_url,
        "priority": 1,
        "weight": 100,
    }
    return {
        "id": name,
        "owned_by": "bench",
        "capabilities": ["chat"],
        "context_length": 8192,
        "prices": {"input_tokens": 150, "cached_input_tokens": 75, "output_tokens": 600},
        "deployments": [deployment],
    }


async def decide(
    platform: Platform, keys: Sequence[str], asked: Sequence[Mapping[str, Any]], seconds: int
) -> list[DecideResponse]:
    """Have the gateway decide on requests by all keys in turns; what it admits is good for so long."""
    layout, turn = platform.layout, asyncio.Semaphore(_DECISIONS_AT_ONCE)
    async with open_channel(
        layout.grpc_address("gateway"), platform.credentials.token(OPERATOR, "gateway")
    ) as channel:
        stub = GatewayServiceStub(channel)

        async def one(request: Mapping[str, Any], key: str) -> DecideResponse:
            facts = RequestFacts(
                method="POST",
                path=CHAT,
                client_address="127.0.0.1",
                body_bytes=len(json.dumps(request)),
                model=request["model"],
                stream=request.get("stream", False),
                max_tokens=request["max_tokens"],
            )
            asking = DecideRequest(facts=facts, api_key=key)
            asking.time_to_live.FromSeconds(seconds)
            async with turn:
                decision: DecideResponse = await stub.Decide(asking, timeout=10)
            return decision

        return await asyncio.gather(*map(one, asked, itertools.cycle(keys)))


async def _keys(platform: Platform) -> list[str]:
    """Open accounts with credits, and make each a key with limits."""
    limits = RateLimits(requests_per_minute=_MANY, tokens_per_minute=_MANY, concurrent_requests=_MANY)
    keys = []
    layout, credentials = platform.layout, platform.credentials
    async with (
        open_channel(layout.grpc_address("credits"), credentials.token(OPERATOR, "credits")) as to_credits,
        open_channel(layout.grpc_address("gateway"), credentials.token(OPERATOR, "gateway")) as to_gateway,
    ):
        for number in range(_ACCOUNTS):
            account = f"bench{number}"
            ledger = CreditsServiceStub(to_credits)
            await ledger.OpenAccount(OpenAccountRequest(account_id=account, name="Bench"), timeout=10)
            grant = GrantRequest(
                account_id=account, nano_credits=_NANO_CREDITS, idempotency_key=account, reason="bench"
            )
            await ledger.Grant(grant, timeout=10)
            creation = CreateApiKeyRequest(
                account_id=account, terms=KeyTerms(name="bench", limits=limits), idempotency_key=account
            )
            created = await GatewayServiceStub(to_gateway).CreateApiKey(creation, timeout=10)
            keys.append(created.secret)
    return keys


async def _until_admitted(platform: Platform, keys: Sequence[str], models: Sequence[str]) -> None:
    """Ask until every key may use every model, of which the gateway hears by events."""
    asked = [{"model": name, "max_tokens": 1} for name in models for _ in keys]

    async def are_admitted() -> bool:
        decisions = await decide(platform, keys, asked, 1)
        return all(decision.HasField("admitted") for decision in decisions)

    await eventually(are_admitted, 30)
