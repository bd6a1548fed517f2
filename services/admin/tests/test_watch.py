"""How the services are, on a fake and on the real database alike, and asked for over HTTP."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import aiohttp
import pytest
from fastapi import FastAPI, Response

from dozen_admin.clients import ReadinessProbe
from dozen_admin.domain.watch import Answer, ServiceHealth
from dozen_admin.repository.health import HealthRepository
from dozen_admin.service.watch import Answers, ServiceWatch
from dozen_testing.http import serve

ADDRESSES = {"chat": "http://chat", "audio": "http://audio"}


@dataclass
class FakeProbe:
    """Services that answer as they are told."""

    says: dict[str, Answer] = field(default_factory=dict)

    async def ask(self, address: str) -> Answer:
        return self.says.get(address, Answer("ready"))


@dataclass
class FakeAnswers:
    """Answers in memory."""

    kept: dict[str, ServiceHealth] = field(default_factory=dict)

    async def note(self, answers: Mapping[str, Answer], now: datetime) -> None:
        for service, answer in answers.items():
            last = self.kept.get(service)
            if last and last.checked_at and last.checked_at > now:
                continue
            since = last.since if last and last.status == answer.status else now
            self.kept[service] = ServiceHealth(service, answer.status, answer.detail, since, now)

    async def latest(self) -> list[ServiceHealth]:
        return list(self.kept.values())


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.integration)])
def answers(request: pytest.FixtureRequest) -> Answers:
    return FakeAnswers() if request.param == "fake" else HealthRepository(request.getfixturevalue("database"))


async def test_what_is_known_is_the_last_answer_and_since_when(answers: Answers, clock: Any) -> None:
    probe = FakeProbe({"http://audio": Answer("down", "postgres: gone")})
    watch = ServiceWatch(ADDRESSES, probe, answers, clock=clock)
    assert [one.status for one in await watch.services()] == ["unknown", "unknown"]
    began = clock()
    await watch.look()
    clock.advance(seconds=30)
    probe.says["http://audio"] = Answer("down", "postgres: still gone")
    probe.says["http://chat"] = Answer("degraded", "nats: gone")
    await watch.look()
    assert await watch.services() == [
        ServiceHealth("chat", "degraded", "nats: gone", clock(), clock()),
        ServiceHealth("audio", "down", "postgres: still gone", began, clock()),
    ]


async def test_an_older_answer_does_not_replace_a_newer_one(answers: Answers, clock: Any) -> None:
    late = clock()
    clock.advance(seconds=1)
    await answers.note({"chat": Answer("ready")}, clock())
    await answers.note({"chat": Answer("down")}, late)
    assert [one.status for one in await answers.latest()] == ["ready"]


async def test_nothing_is_claimed_of_a_service_that_was_not_asked_for_a_minute(
    answers: Answers, clock: Any
) -> None:
    watch = ServiceWatch({"chat": "http://chat"}, FakeProbe(), answers, clock=clock)
    await watch.look()
    clock.advance(seconds=61)
    (chat,) = await watch.services()
    assert (chat.status, chat.detail) == ("unknown", "not asked lately")


@pytest.fixture
async def probe() -> AsyncIterator[ReadinessProbe]:
    async with aiohttp.ClientSession() as session:
        yield ReadinessProbe(session, timeout_seconds=0.5)


@pytest.mark.parametrize(
    ("status", "body", "answer"),
    [
        (200, '{"status": "ready", "checks": {"postgres": "ok"}}', Answer("ready")),
        (
            200,
            '{"status": "degraded", "checks": {"postgres": "ok", "nats": "NotConnected"}}',
            Answer("degraded", "nats: NotConnected"),
        ),
        (
            503,
            '{"status": "unready", "checks": {"postgres": "TimeoutError", "model": "loading"}}',
            Answer("down", "postgres: TimeoutError; model: loading"),
        ),
        (503, '{"status": "unready", "checks": {}}', Answer("down", "unready")),
        (500, '{"status": "ready", "checks": {}}', Answer("down", "ready")),
        (200, "<html>", Answer("down", "answers 200, and not as a service of this platform does")),
        (200, '{"status": []', Answer("down", "answers 200, and not as a service of this platform does")),
        (200, "[1]", Answer("down", "answers 200, and not as a service of this platform does")),
    ],
)
async def test_a_service_is_what_it_says(
    probe: ReadinessProbe, status: int, body: str, answer: Answer
) -> None:
    app = FastAPI()
    app.get("/readyz")(lambda: Response(body, status))
    async with serve(app) as url:
        assert await probe.ask(url) == answer


async def test_a_service_that_is_not_there_or_hangs_is_down(probe: ReadinessProbe) -> None:
    app = FastAPI()

    @app.get("/readyz")
    async def hang() -> None:
        await asyncio.Event().wait()

    async with serve(app) as url:
        assert await probe.ask(url) == Answer("down", "no answer within 0.5 s")
    gone = await probe.ask(url)
    assert gone.status == "down"
    assert gone.detail.startswith("no answer: ")
