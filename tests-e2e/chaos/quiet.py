"""Waiting until nothing is under way any more: no event, no lease of the dead, no hold."""

import json
import time
from collections.abc import Awaitable, Callable, Sequence

import aiohttp
import asyncpg

from chaos.books import connect
from dozen_local.layout import SERVICES
from dozen_local.platform import Platform
from dozen_testing.conditions import eventually

HOLDS_METRIC = "dozen_gateway_open_holds"
EVENTS_SECONDS = 240.0
"""An event that was being handled when its consumer was killed comes again after half a minute, and so do
those behind it that failed meanwhile, later each time."""
_CONSUMERS = ("credits-UsageReported", "gateway-UsageRated")
_ADMISSION_SECONDS = 60.0
"""How long an admitted request may wait before it begins; its hold lasts so much longer."""
_SWEEP_SECONDS = 30.0

Look = Callable[[], Awaitable[list[str]]]
Report = Callable[[str], None]


class Quiet:
    """Looks at a platform until it has come to rest."""

    def __init__(self, platform: Platform, accounts: Sequence[str], report: Report) -> None:
        self._platform = platform
        self._accounts = accounts
        self._report = report

    async def wait(self, lease_seconds: float, longest_request_seconds: float) -> list[str]:
        """Return when all is at rest; give what was not in time."""
        late = await self._until("events are on their way", self._waiting_events, EVENTS_SECONDS)
        seconds = lease_seconds + longest_request_seconds + _SWEEP_SECONDS
        late += await self._until("leases of the dead are open", self._expired_leases, seconds)
        seconds = _ADMISSION_SECONDS + longest_request_seconds + _SWEEP_SECONDS
        await self._until("requests are held", self._open_holds, seconds)  # those that stay are counted
        return late

    async def open_holds(self) -> int | None:
        """Read how many requests the gateway holds credits for; None where it does not say."""
        async with aiohttp.ClientSession() as http:
            answer = await http.get(f"{self._platform.layout.http_address('gateway')}/metrics")
            lines = (await answer.text()).splitlines()
        values = [line.rpartition(" ")[2] for line in lines if line.startswith(HOLDS_METRIC)]
        return int(sum(map(float, values))) if values else None

    async def _until(self, what: str, look: Look, seconds: float) -> list[str]:
        began, found = time.monotonic(), [""]

        async def at_rest() -> bool:
            nonlocal found
            try:
                found = await look()
            except (OSError, aiohttp.ClientError, asyncpg.PostgresError, TimeoutError) as error:
                found = [repr(error)]
            return not found

        try:
            await eventually(at_rest, seconds)
        except AssertionError:
            return [f"{what} after {seconds:.0f} s: {line}" for line in found]
        self._report(f"no {what}, after {time.monotonic() - began:.0f} s")
        return []

    async def _waiting_events(self) -> list[str]:
        waiting = []
        for service in SERVICES:
            connection = await connect(self._platform, service)
            try:
                if count := await connection.fetchval("select count(*) from outbox"):
                    waiting.append(f"{count} in the outbox of {service}")
            finally:
                await connection.close()
        return waiting + await self._undelivered()

    async def _undelivered(self) -> list[str]:
        port = self._platform.layout.nats_monitor_port
        async with aiohttp.ClientSession() as http:
            answer = await http.get(f"http://127.0.0.1:{port}/jsz?consumers=true")
            report = json.loads(await answer.text())
        consumers = {
            consumer["name"]: consumer
            for account in report.get("account_details", ())
            for stream in account.get("stream_detail", ())
            for consumer in stream.get("consumer_detail", ())
        }
        return [f"no consumer {name}" for name in _CONSUMERS if name not in consumers] + [
            f"{name} has {consumer['num_pending']} to come and {consumer['num_ack_pending']} at work"
            for name, consumer in consumers.items()
            if name in _CONSUMERS and (consumer["num_pending"] or consumer["num_ack_pending"])
        ]

    async def _expired_leases(self) -> list[str]:
        connection = await connect(self._platform, "credits")
        try:
            rows = await connection.fetch(
                "select id, holder, expires_at from leases"
                " where closed_at is null and expires_at < now() and account_id = any($1)",
                self._accounts,
            )
        finally:
            await connection.close()
        return [f"{row['id']} of {row['holder']} expired at {row['expires_at']}" for row in rows]

    async def _open_holds(self) -> list[str]:
        return [f"{count} holds"] if (count := await self.open_holds()) else []
