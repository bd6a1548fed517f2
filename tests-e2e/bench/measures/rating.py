"""The way of usage from the outbox of a serving service into the ledger, on all cores together."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import aiohttp
import asyncpg

from bench import meter
from bench.figures import Effort, Figure
from bench.rounds import cpu_seconds
from bench.servers import databases_and_nats, program, start
from dozen.credits.v1.credits_service_pb2 import AcquireLeaseRequest, GrantRequest, OpenAccountRequest
from dozen.credits.v1.credits_service_pb2_grpc import CreditsServiceStub
from dozen_chassis.grpc import open_channel
from dozen_local.bootstrap import OPERATOR
from dozen_local.environment import database_dsn
from dozen_local.platform import Platform
from dozen_testing.conditions import eventually

_RECORDS = 200_000
_ACCOUNTS = 1_000
_AT_ONCE = 32
_CREDITS = 10**12
_LONGEST_SECONDS = 600.0


@dataclass(frozen=True)
class _Round:
    seconds: float
    records: int
    cpu_seconds: dict[str, float]

    @property
    def per_second(self) -> float:
        return self.records / self.seconds


def measure(effort: Effort) -> Sequence[Figure]:
    """Put usage into the outbox, and wait until all of it has been charged."""
    records, accounts = effort.of(_RECORDS), effort.of(_ACCOUNTS)
    with databases_and_nats([meter.SERVICE, "credits"], core=None) as platform:
        port = platform.layout.http_port(meter.SERVICE)
        with program(platform, "bench.meter", port=port, service=meter.SERVICE) as process:
            pids = {
                "relay": start(process, core=None),
                "credits": start(platform.processes["credits"], core=None),
                "postgres": platform.postgres.process.pid or 0,
                "nats": platform.nats.process.pid or 0,
            }
            rounds = asyncio.run(_measure(platform, pids, effort.rounds, records, accounts))
            platform.processes["credits"].stop()
    figures = [
        Figure(
            "rating.records_per_second",
            median(one.per_second for one in rounds),
            at_least=20_000,
            note=f"{records:,} of {accounts:,} accounts, {meter.RECORDS_A_MESSAGE} a message",
        )
    ]
    for name in pids:
        microseconds = median(one.cpu_seconds[name] / one.records * 1e6 for one in rounds)
        figures.append(Figure(f"rating.{name}_cpu_microseconds_per_record", microseconds))
    return figures


async def _measure(
    platform: Platform, pids: dict[str, int], rounds: int, records: int, accounts: int
) -> list[_Round]:
    dsn = database_dsn("credits", platform.layout, platform.credentials)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "insert into prices (id, model_id, nano_credits, effective_from)"
            " values ('price', 'any', $1, now())",
            json.dumps({"input_tokens": 3, "output_tokens": 9}),
        )
        leases = await _lease(platform, accounts)
        await _rate(platform, connection, pids, "warm-up", meter.RECORDS_A_MESSAGE * 4, leases)
        found = [
            await _rate(platform, connection, pids, f"round-{number}", records, leases)
            for number in range(rounds)
        ]
        assert not await connection.fetchval("select count(*) from unrated_usage"), "usage was set aside"
        assert not await connection.fetchval("select sum(written_off) from usage"), "usage was not paid"
        return found
    finally:
        await connection.close()


async def _rate(
    platform: Platform, connection: Any, pids: dict[str, int], name: str, records: int, leases: dict[str, str]
) -> _Round:
    async def rated() -> int:
        return int(
            await connection.fetchval("select coalesce(sum(requests), 0) from usage_sums where step = 'hour'")
        )

    wanted = await rated() + records

    async def are_rated() -> bool:
        return await rated() >= wanted

    url = f"{platform.layout.http_address(meter.SERVICE)}{meter.FILL}"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(_LONGEST_SECONDS)) as http:
        order = {"name": name, "records": records, "leases": leases}
        before = {process: cpu_seconds(pid) for process, pid in pids.items()}
        async with http.post(url, json=order) as answer:
            began = time.perf_counter()  # committed now
            assert answer.ok, await answer.text()
    await eventually(are_rated, _LONGEST_SECONDS)
    seconds = time.perf_counter() - began
    return _Round(
        seconds, records, {process: cpu_seconds(pid) - before[process] for process, pid in pids.items()}
    )


async def _lease(platform: Platform, accounts: int) -> dict[str, str]:
    """Open accounts with credits, and a lease for each."""
    token = platform.credentials.token(OPERATOR, "credits")
    async with open_channel(platform.layout.grpc_address("credits"), token) as channel:
        stub: Any = CreditsServiceStub(channel)
        turn = asyncio.Semaphore(_AT_ONCE)

        async def lease(account: str) -> tuple[str, str]:
            async with turn:
                await stub.OpenAccount(OpenAccountRequest(account_id=account, name="benchmark"))
                await stub.Grant(
                    GrantRequest(
                        account_id=account, nano_credits=_CREDITS, idempotency_key=account, reason="benchmark"
                    )
                )
                acquired = await stub.AcquireLease(
                    AcquireLeaseRequest(
                        account_id=account,
                        holder="benchmark",
                        needed_nano_credits=_CREDITS // 2,
                        request_token="only",
                    )
                )
                return account, acquired.lease.id

        return dict(await asyncio.gather(*(lease(f"account{number}") for number in range(accounts))))
