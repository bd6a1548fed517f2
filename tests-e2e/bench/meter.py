"""A serving service that serves nothing: it only reports usage, in the way that all of them do."""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import uvloop
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.admission import Admission
from dozen_chassis.app import App, Resources
from dozen_chassis.logging import configure_logging
from dozen_chassis.outbox import GroupCommit
from dozen_chassis.postgres import Repository
from dozen_chassis.run import serving
from dozen_chassis.settings import AdmittedSettings
from dozen_inference.settlement import FollowedRequests, Settlements
from dozen_inference.usage import usage_record, usage_reported

SERVICE = "chat"
"""The service in whose place it runs."""
BILLED, FREE, FILL = "/v1/billed", "/v1/free", "/fill"
OPERATION = f"POST {BILLED}"
MODELS = 5
TOKENS = {"input_tokens": 120, "output_tokens": 60}
RECORDS_A_MESSAGE = 500
"""As many as the group commit writes together."""


@dataclass(frozen=True, slots=True)
class Entry:
    """What is written where a request ends."""

    usage: UsageRecord


class Meter:
    """Answers requests, with and without a bill, and reports usage by the hundred thousand."""

    def __init__(self, repository: Repository, commits: GroupCommit[Entry]) -> None:
        self._repository = repository
        self._settlements: Settlements[Entry] = Settlements(commits.put, unused=Entry)

    def routes(self) -> list[Route]:
        """Give what is served."""
        return [
            Route(BILLED, FollowedRequests(self._billed, self._settlements), methods=["POST"]),
            Route(FREE, _Free(), methods=["POST"]),
            Route(FILL, self._fill, methods=["POST"]),
        ]

    async def _billed(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._settlements.put(Entry(usage_record(scope["admission"], TOKENS)))
        await _answer(send)

    async def _fill(self, request: Request) -> Response:
        """Put records into the outbox, all at once; the accounts come with their leases."""
        order = await request.json()
        names: list[tuple[str, str]] = list(order["leases"].items())
        records = [
            _record(f"{order['name']}-{number}", names[number % len(names)], number)
            for number in range(order["records"])
        ]
        async with self._repository.transaction() as tx:
            for start in range(0, len(records), RECORDS_A_MESSAGE):
                await tx.emit(usage_reported(records[start : start + RECORDS_A_MESSAGE]))
        return JSONResponse({})


class _Free:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await _answer(send)


def facts(account: str, lease_id: str, model: int = 0) -> Mapping[str, str]:
    """Give what an admission says of a request with a price."""
    return {
        "model": f"model-{model}",
        "deployments": f"model-{model}-one,model-{model}-two",
        "price": "price",
        "max-tokens": "60",
        "reservation": lease_id,
    }


def _record(request_id: str, account_and_lease: tuple[str, str], number: int) -> UsageRecord:
    account, lease_id = account_and_lease
    admission = Admission(
        account, f"key_{account}", request_id, OPERATION, facts(account, lease_id, number % MODELS)
    )
    return usage_record(admission, TOKENS)


async def _answer(send: Send) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", b"12")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b'{"answer":1}'})


async def create_app(settings: AdmittedSettings, stack: Resources) -> App:
    """Build the service."""
    database = await stack.postgres(settings.postgres_dsn, keeps=[UsageReported])
    stack.jetstream(settings.nats_url)
    repository = Repository(database)
    commits: GroupCommit[Entry] = stack.group_commit(
        lambda entries: repository.emit(usage_reported([entry.usage for entry in entries]))
    )
    admission_key = bytes.fromhex(settings.admission_key.get_secret_value())
    return App(plain_routes=Meter(repository, commits).routes(), admission_key=admission_key)


async def _serve() -> None:
    settings = AdmittedSettings()
    configure_logging(SERVICE, "WARNING")
    async with serving(SERVICE, create_app, settings) as server:
        await asyncio.shield(server.failed)


if __name__ == "__main__":
    sys.exit(uvloop.run(_serve()))
