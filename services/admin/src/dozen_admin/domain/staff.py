"""The staff's actions, and the rules for signing in."""

import hashlib
import hmac
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

ACTOR = "admin"
SESSION_LIFETIME = timedelta(hours=12)
MOST_FAILURES = 5
FAILURE_WINDOW = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Action:
    """An entry of the audit log."""

    id: str
    action: str
    actor: str
    address: str
    taken_at: datetime


def is_staff(user: str, password: str, right_password: str) -> bool:
    """Tell whether somebody may sign in, in a time that tells nothing of the right password."""
    given, right = (
        hashlib.sha256(each.encode("utf-8", "replace")).digest() for each in (password, right_password)
    )
    return hmac.compare_digest(given, right) and user == ACTOR


def session_key(token: str, password: str) -> bytes:
    """Give the key that a session is kept under.

    The token itself is kept nowhere but in the browser, and no session outlives a change of the password.
    """
    return hmac.digest(password.encode(), token.encode("utf-8", "replace"), hashlib.sha256)


def form_token(token: str) -> str:
    """Give the token that a form must bring back with the browser's cookie; no other site can know it."""
    return hmac.digest(token.encode("utf-8", "replace"), b"form", hashlib.sha256).hex()


def seconds_to_wait(failures: Sequence[datetime], now: datetime) -> int:
    """Give the seconds until an address may try again, from its newest failures; 0 where it may now."""
    if len(failures) < MOST_FAILURES:
        return 0
    oldest = sorted(failures)[-MOST_FAILURES]
    return max(0, math.ceil((oldest + FAILURE_WINDOW - now).total_seconds()))
