"""Readiness: what all the pings say together."""

import asyncio

import pytest

from dozen_chassis import health
from dozen_chassis.health import Health


async def works() -> None:
    pass


async def fails() -> None:
    raise ConnectionError("gone")


async def hangs() -> None:
    await asyncio.Event().wait()


def started(**pings: health.Ping) -> Health:
    found = Health("test", started=True)
    for name, ping in pings.items():
        found.register(name.removeprefix("optional_"), ping, optional=name.startswith("optional_"))
    return found


async def test_a_service_is_ready_when_everything_answers() -> None:
    assert await started(postgres=works, optional_nats=works).check() == (
        "ready",
        {"postgres": "ok", "nats": "ok"},
    )


async def test_a_service_is_degraded_without_what_it_can_work_without() -> None:
    assert await started(postgres=works, optional_nats=fails).check() == (
        "degraded",
        {"postgres": "ok", "nats": "ConnectionError: gone"},
    )


async def test_a_service_is_not_ready_without_what_it_needs() -> None:
    status, checks = await started(postgres=fails, optional_nats=works).check()
    assert (status, checks["postgres"]) == ("unready", "ConnectionError: gone")


async def test_a_ping_that_hangs_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "PING_SECONDS", 0.01)
    async with asyncio.timeout(5):
        status, checks = await started(postgres=hangs, other=works).check()
    assert status == "unready"
    assert checks == {"postgres": "TimeoutError", "other": "ok"}


async def test_a_service_takes_no_traffic_before_its_start_and_after_its_end() -> None:
    found = Health("test")
    assert (await found.check())[0] == "unready"
    found.started = True
    assert (await found.check())[0] == "ready"
    found.stopping.set()
    assert (await found.check())[0] == "unready"
