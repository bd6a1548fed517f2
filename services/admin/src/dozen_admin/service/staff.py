"""Who may see the pages: signing in and out, and the log of it."""

import secrets
import uuid
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Protocol, Self

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from prometheus_client import Counter

from dozen.admin.v1.admin_events_pb2 import AdminActionTaken
from dozen_admin.domain.staff import (
    ACTOR,
    FAILURE_WINDOW,
    SESSION_LIFETIME,
    Action,
    is_staff,
    seconds_to_wait,
    session_key,
)
from dozen_admin.errors import NotSignedIn, TooManyFailures, WrongPassword

SIGN_INS = Counter("dozen_admin_sign_ins", "Attempts to sign in.", ["outcome"])

FAILED = "sign_in_failed"
_FORGET_BATCH = 1000


class Staff(Protocol):
    """Sessions and the audit log."""

    def transaction(self) -> AbstractAsyncContextManager[Self]:
        """Give the same in one transaction."""
        ...

    async def emit(self, event: Message) -> None:
        """Publish an event with the transaction."""
        ...

    async def one_at_a_time(self, address: str) -> None:
        """Let no other transaction go beyond this for the same address, until this one ends."""
        ...

    async def log(self, action: Action) -> None:
        """Add an entry to the audit log."""
        ...

    async def actions_since(self, action: str, address: str, since: datetime) -> list[datetime]:
        """Give the times of an action from an address since a moment."""
        ...

    async def actions(self, *, after: str | None, limit: int) -> list[Action]:
        """Give the newest entries of the audit log, after one."""
        ...

    async def begin(self, key: bytes, actor: str, expires_at: datetime) -> None:
        """Keep a session."""
        ...

    async def actor(self, key: bytes, now: datetime) -> str | None:
        """Give who has a session that has not expired."""
        ...

    async def end(self, key: bytes) -> None:
        """Drop a session."""
        ...

    async def forget_sessions(self, before: datetime, limit: int) -> int:
        """Drop sessions that expired before a moment; return how many."""
        ...

    async def forget_actions(self, before: datetime, limit: int) -> int:
        """Drop entries of the audit log from before a moment; return how many."""
        ...


class StaffService:
    """Lets the staff in, and nobody else."""

    def __init__(
        self, staff: Staff, password: str, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._staff = staff
        self._password = password
        self._clock = clock

    async def sign_in(self, user: str, password: str, address: str) -> str:
        """Begin a session and return its token."""
        now = self._clock()
        async with self._staff.transaction() as tx:
            # Otherwise many attempts at once would all be made before the first failure is counted.
            await tx.one_at_a_time(address)
            wait = seconds_to_wait(await tx.actions_since(FAILED, address, now - FAILURE_WINDOW), now)
            if wait:
                SIGN_INS.labels("refused").inc()
                raise TooManyFailures(headers={"retry-after": str(wait)})
            right = is_staff(user, password, self._password)
            token = secrets.token_urlsafe(32)
            if right:
                await tx.begin(self._key(token), ACTOR, now + SESSION_LIFETIME)
                await self._log(tx, "signed_in", ACTOR, address)
            else:
                # Not the name that was given: people type their password there.
                await self._log(tx, FAILED, ACTOR if user == ACTOR else "unknown", address)
        SIGN_INS.labels("signed_in" if right else "failed").inc()
        if not right:
            raise WrongPassword()
        return token

    async def actor(self, token: str) -> str:
        """Give who has the session of a token; raise where there is none."""
        actor = await self._staff.actor(self._key(token), self._clock()) if token else None
        if actor is None:
            raise NotSignedIn()
        return actor

    async def sign_out(self, token: str, address: str) -> None:
        """End a session."""
        actor = await self.actor(token)
        async with self._staff.transaction() as tx:
            await tx.end(self._key(token))
            await self._log(tx, "signed_out", actor, address)

    async def actions(self, *, after: str | None, limit: int) -> Sequence[Action]:
        """Give the newest entries of the audit log, after one."""
        return await self._staff.actions(after=after, limit=limit)

    async def forget(self, *, keep_audit: timedelta) -> None:
        """Drop sessions that have expired and old entries of the audit log."""
        now = self._clock()
        while await self._staff.forget_sessions(now, _FORGET_BATCH):
            pass
        while await self._staff.forget_actions(now - keep_audit, _FORGET_BATCH):
            pass

    def _key(self, token: str) -> bytes:
        return session_key(token, self._password)

    async def _log(self, tx: Staff, what: str, actor: str, address: str) -> None:
        action = Action(f"act_{uuid.uuid4().hex}", what, actor, address, self._clock())
        taken_at = Timestamp()
        taken_at.FromDatetime(action.taken_at)
        await tx.log(action)
        await tx.emit(
            AdminActionTaken(id=action.id, action=what, actor=actor, address=address, taken_at=taken_at)
        )
