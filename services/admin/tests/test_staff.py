"""Signing in and out, on a fake and on the real database alike."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Self

import pytest
from google.protobuf.message import Message

from dozen_admin.domain.staff import Action
from dozen_admin.errors import NotSignedIn, TooManyFailures, WrongPassword
from dozen_admin.repository.staff import StaffRepository
from dozen_admin.service.staff import Staff, StaffService

PASSWORD = "correct horse battery"


@dataclass
class FakeStaff:
    """Sessions and the audit log in memory."""

    sessions: dict[bytes, tuple[str, datetime]] = field(default_factory=dict)
    entries: list[Action] = field(default_factory=list)
    events: list[Message] = field(default_factory=list)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Self]:
        async with self.lock:
            yield self

    async def emit(self, event: Message) -> None:
        self.events.append(event)

    async def one_at_a_time(self, address: str) -> None:
        assert self.lock.locked()

    async def log(self, action: Action) -> None:
        self.entries.append(action)

    async def actions_since(self, action: str, address: str, since: datetime) -> list[datetime]:
        return [
            one.taken_at
            for one in self.entries
            if (one.action, one.address) == (action, address) and one.taken_at > since
        ]

    async def actions(self, *, after: str | None, limit: int) -> list[Action]:
        newest = self.entries[::-1]
        start = [one.id for one in newest].index(after) + 1 if after else 0
        return newest[start : start + limit]

    async def begin(self, key: bytes, actor: str, expires_at: datetime) -> None:
        self.sessions[key] = (actor, expires_at)

    async def actor(self, key: bytes, now: datetime) -> str | None:
        actor, expires_at = self.sessions.get(key, ("", now))
        return actor if expires_at > now else None

    async def end(self, key: bytes) -> None:
        self.sessions.pop(key, None)

    async def forget_sessions(self, before: datetime, limit: int) -> int:
        old = [key for key, (_, expires_at) in self.sessions.items() if expires_at < before][:limit]
        for key in old:
            del self.sessions[key]
        return len(old)

    async def forget_actions(self, before: datetime, limit: int) -> int:
        old = [one for one in self.entries if one.taken_at < before][:limit]
        self.entries = [one for one in self.entries if one not in old]
        return len(old)


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.integration)])
def records(request: pytest.FixtureRequest) -> Staff:
    return FakeStaff() if request.param == "fake" else StaffRepository(request.getfixturevalue("database"))


@pytest.fixture
def staff(records: Staff, clock: Callable[[], datetime]) -> StaffService:
    return StaffService(records, PASSWORD, clock=clock)


async def test_who_signs_in_is_known_until_they_sign_out(staff: StaffService) -> None:
    token = await staff.sign_in("admin", PASSWORD, "10.0.0.1")
    assert await staff.actor(token) == "admin"
    await staff.sign_out(token, "10.0.0.1")
    for gone in (token, "another", ""):
        with pytest.raises(NotSignedIn):
            await staff.actor(gone)
    with pytest.raises(NotSignedIn):
        await staff.sign_out(token, "10.0.0.1")
    log = await staff.actions(after=None, limit=10)
    assert [(one.action, one.actor, one.address) for one in log] == [
        ("signed_out", "admin", "10.0.0.1"),
        ("signed_in", "admin", "10.0.0.1"),
    ]


async def test_a_session_ends_after_twelve_hours(staff: StaffService, clock: Any) -> None:
    token = await staff.sign_in("admin", PASSWORD, "10.0.0.1")
    clock.advance(hours=11, minutes=59)
    await staff.actor(token)
    clock.advance(minutes=1)
    with pytest.raises(NotSignedIn):
        await staff.actor(token)


async def test_another_password_ends_all_sessions(staff: StaffService, records: Staff, clock: Any) -> None:
    token = await staff.sign_in("admin", PASSWORD, "10.0.0.1")
    with pytest.raises(NotSignedIn):
        await StaffService(records, "another password", clock=clock).actor(token)


async def test_failures_are_logged_without_what_was_typed(staff: StaffService) -> None:
    for user in ("admin", PASSWORD):
        with pytest.raises(WrongPassword):
            await staff.sign_in(user, "wrong", "10.0.0.1")
    log = await staff.actions(after=None, limit=10)
    assert [(one.action, one.actor) for one in log] == [
        ("sign_in_failed", "unknown"),
        ("sign_in_failed", "admin"),
    ]
    assert await staff.actions(after=log[0].id, limit=10) == log[1:]


async def test_the_sixth_attempt_within_a_minute_is_refused_even_with_the_right_password(
    staff: StaffService, clock: Any
) -> None:
    for _ in range(5):
        with pytest.raises(WrongPassword):
            await staff.sign_in("admin", "wrong", "10.0.0.1")
        clock.advance(seconds=5)
    with pytest.raises(TooManyFailures) as refused:
        await staff.sign_in("admin", PASSWORD, "10.0.0.1")
    assert refused.value.headers == {"retry-after": "35"}
    await staff.sign_in("admin", PASSWORD, "10.0.0.2")
    clock.advance(seconds=35)
    await staff.sign_in("admin", PASSWORD, "10.0.0.1")


async def test_attempts_made_at_once_are_counted_too(staff: StaffService) -> None:
    attempts = (staff.sign_in("admin", "wrong", "10.0.0.1") for _ in range(12))
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == (
        ["TooManyFailures"] * 7 + ["WrongPassword"] * 5
    )


async def test_what_is_old_is_forgotten(staff: StaffService, clock: Any) -> None:
    await staff.sign_in("admin", PASSWORD, "10.0.0.1")
    clock.advance(days=10)
    token = await staff.sign_in("admin", PASSWORD, "10.0.0.1")
    await staff.forget(keep_audit=timedelta(days=9))
    assert len(await staff.actions(after=None, limit=10)) == 1
    assert await staff.actor(token)


async def test_expired_sessions_are_dropped(clock: Any) -> None:
    records = FakeStaff()
    staff = StaffService(records, PASSWORD, clock=clock)
    await staff.sign_in("admin", PASSWORD, "10.0.0.1")
    clock.advance(hours=12, seconds=1)
    await staff.forget(keep_audit=timedelta(days=9))
    assert not records.sessions


async def test_an_event_tells_of_each_action(clock: Any) -> None:
    records = FakeStaff()
    staff = StaffService(records, PASSWORD, clock=clock)
    await staff.sign_out(await staff.sign_in("admin", PASSWORD, "10.0.0.1"), "10.0.0.1")
    assert [event.action for event in records.events] == ["signed_in", "signed_out"]  # type: ignore[attr-defined]
    assert [event.id for event in records.events] == [one.id for one in records.entries]  # type: ignore[attr-defined]
