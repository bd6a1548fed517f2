"""What the staff sees, and the rules for signing in."""

import hashlib
import hmac
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

ACTOR = "admin"
SESSION_LIFETIME = timedelta(hours=12)
MOST_FAILURES = 5
FAILURE_WINDOW = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Account:
    """An account, with its balance and all that it has been charged; amounts are nano-credits."""

    id: str
    name: str = ""
    opened_at: datetime | None = None
    available: int = 0
    charged: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Balance:
    """An account's balance; the one with the highest version is the newest."""

    account: str
    available: int
    version: int


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without its secret."""

    id: str
    account: str
    name: str
    created_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Charge:
    """What one request used and cost."""

    request_id: str
    account: str
    key: str
    model: str
    deployment: str
    operation: str
    quantities: Mapping[str, int]
    nano_credits: int
    estimated: bool
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class Task:
    """A task in its final state: `succeeded`, `failed` or `cancelled`."""

    id: str
    account: str
    type: str
    state: str
    error: str
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class Deployment:
    """A place where a model is served; `health` is `healthy`, `unhealthy` or `unknown`."""

    id: str
    model: str
    service: str
    address: str
    priority: int
    weight: int
    health: str = "unknown"
    reason: str = ""
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Health:
    """How a deployment was at a moment."""

    deployment: str
    health: str
    reason: str
    observed_at: datetime


@dataclass(frozen=True, slots=True)
class Price:
    """What one unit of each kind costs in nano-credits, from a moment on."""

    id: str
    model: str
    nano_credits: Mapping[str, int]
    effective_from: datetime


@dataclass(frozen=True, slots=True)
class Model:
    """An entry of the catalogue with its price in force."""

    id: str
    owned_by: str
    capabilities: Sequence[str]
    context_length: int
    deployments: Sequence[Deployment] = ()
    prices: Mapping[str, int] | None = None


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """What was used of a model in some time."""

    model: str
    requests: int
    quantities: Mapping[str, int]
    nano_credits: int


@dataclass(frozen=True, slots=True)
class Totals:
    """What was used by all in some time."""

    requests: int
    tokens: int
    nano_credits: int


@dataclass(frozen=True, slots=True)
class Answer:
    """How a service answers: `ready`, `degraded` (it works, but something is missing) or `down`."""

    status: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class ServiceHealth:
    """How a service answered when it was last asked, and since when; `unknown` where it never was."""

    service: str
    status: str
    detail: str = ""
    since: datetime | None = None
    checked_at: datetime | None = None


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
