"""API keys in the database."""

import asyncio
import json
import logging
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import asyncpg

from dozen_chassis.postgres import FAILURES, Connection
from dozen_gateway.domain.key_requests import Answered, KeyRequest
from dozen_gateway.domain.keys import ANY, NO_LABELS, ApiKey, Budget, BudgetPeriod
from dozen_gateway.domain.limits import RateLimits
from dozen_gateway.repository.followed import FollowedRepository

log = logging.getLogger(__name__)

_ROWS_AT_ONCE = 2000  # take some milliseconds


class KeysRepository(FollowedRepository):
    """API keys; of their secrets only the SHA-256."""

    async def lock_account(self, account: str) -> None:
        """Let no other transaction change the keys of an account until this one has ended."""
        await self.db.execute("select pg_advisory_xact_lock(hashtextextended('keys of ' || $1, 0))", account)

    async def add_key(self, key: ApiKey) -> None:
        """Keep a new key, and tell every replica."""
        await self.db.execute(
            "insert into api_keys (id, account_id, secret_sha256, created_at, name, revoked_at, expires_at,"
            " labels, endpoints, models, limits, budget_nano_credits, budget_period, previous_sha256,"
            " previous_until, version)"
            " values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)",
            key.id, key.account, key.secret_sha256, _time(key.created_at), *_changeable(key),
        )  # fmt: skip
        await self.tell_replicas("keys", [key.id])

    async def save_key(self, key: ApiKey) -> None:
        """Keep a key as it is now, and tell every replica."""
        await self.db.execute(
            "update api_keys set secret_sha256 = $3, name = $4, revoked_at = $5, expires_at = $6,"
            " labels = $7, endpoints = $8, models = $9, limits = $10, budget_nano_credits = $11,"
            " budget_period = $12, previous_sha256 = $13, previous_until = $14, version = $15"
            " where account_id = $1 and id = $2",
            key.account, key.id, key.secret_sha256, *_changeable(key),
        )  # fmt: skip
        await self.tell_replicas("keys", [key.id])

    async def count_keys(self, account: str) -> int:
        """Count the keys of an account that are not revoked."""
        count: int = await self.db.fetchval(
            "select count(*) from api_keys where account_id = $1 and revoked_at is null", account
        )
        return count

    async def find_key(self, account: str, key_id: str) -> ApiKey | None:
        """Give a key of an account."""
        row = await self.db.fetchrow(
            "select * from api_keys where account_id = $1 and id = $2", account, key_id
        )
        return _key(row) if row else None

    async def look_up_key(self, account: str, key_id: str) -> ApiKey | None:
        """Give a key of an account; None too where the database does not answer."""
        try:
            return await self.find_key(account, key_id)
        except FAILURES as error:
            log.warning("a key cannot be looked up: %r", error)
            return None

    async def list_keys(
        self, account: str, *, limit: int, after: str | None, newest_first: bool, revoked: bool
    ) -> list[ApiKey]:
        """List the keys of an account that follow the key `after`, revoked ones only where wanted."""
        beyond, direction = ("<", "desc") if newest_first else (">", "asc")
        rows = await self.db.fetch(
            "select * from api_keys where account_id = $1 and ($2 or revoked_at is null)"
            f" and ($3::text is null or (created_at, id) {beyond}"
            "  (select created_at, id from api_keys where account_id = $1 and id = $3))"
            f" order by created_at {direction}, id {direction} limit $4",
            account, revoked, after, limit,
        )  # fmt: skip
        return [_key(row) for row in rows]

    async def page_keys(self, after: str, limit: int) -> list[ApiKey]:
        """Give keys of all accounts, by id, and let nobody change them until the transaction has ended."""
        rows = await self.db.fetch(
            "select * from api_keys where id > $1 order by id limit $2 for share", after, limit
        )
        return [_key(row) for row in rows]

    async def find_answer(self, request: KeyRequest, since: float) -> Answered | None:
        """Give what was done under a request's idempotency key."""
        row = await self.db.fetchrow(
            "select request.fingerprint, request.created_at as answered_at, answer.*"
            " from key_requests request, jsonb_populate_record(null::api_keys, request.api_key) answer"
            " where request.account_id = $1 and request.idempotency_key = $2 and request.created_at > $3",
            request.account, request.idempotency_key, _time(since),
        )  # fmt: skip
        return Answered(row["fingerprint"], _key(row), row["answered_at"].timestamp()) if row else None

    async def save_answer(self, request: KeyRequest, answered: Answered) -> None:
        """Keep what was done for a request, in place of what its idempotency key stood for before."""
        await self.db.execute(
            "insert into key_requests (account_id, idempotency_key, fingerprint, api_key, created_at)"
            " select $1, $2, $3, to_jsonb(answer), $5 from api_keys answer where id = $4"
            " on conflict (account_id, idempotency_key) do update set fingerprint = excluded.fingerprint,"
            " api_key = excluded.api_key, created_at = excluded.created_at",
            request.account, request.idempotency_key, answered.fingerprint, answered.key.id,
            _time(answered.at),
        )  # fmt: skip

    async def forget_answers(self, before: float, limit: int) -> int:
        """Drop answers from before a time; tell how many there were."""
        status: str = await self.db.execute(
            "delete from key_requests where (account_id, idempotency_key) in ("
            "  select account_id, idempotency_key from key_requests where created_at < $1 limit $2"
            "  for update skip locked)",
            _time(before), limit,
        )  # fmt: skip
        return int(status.split()[-1])


async def read_keys(db: asyncpg.Pool | Connection, ids: list[str] | None) -> dict[str, ApiKey]:
    """Read these keys; None gives all that are not revoked."""
    if ids is not None:
        rows = await db.fetch("select * from api_keys where id = any($1)", ids)
    else:
        rows = await db.fetch("select * from api_keys where revoked_at is null")
    keys: dict[str, ApiKey] = {}
    for start in range(0, len(rows), _ROWS_AT_ONCE):
        keys |= {row["id"]: _key(row) for row in rows[start : start + _ROWS_AT_ONCE]}
        await asyncio.sleep(0)  # so that decisions go on meanwhile
    return keys


def _changeable(key: ApiKey) -> tuple[object, ...]:
    return (
        key.name,
        _time(key.revoked_at),
        _time(key.expires_at),
        json.dumps(dict(key.labels)) if key.labels else None,
        sorted(key.endpoints) or None,
        sorted(key.models) or None,
        json.dumps(asdict(key.limits)) if key.limits else None,
        key.budget and key.budget.nano_credits,
        key.budget and key.budget.period,
        key.previous_sha256,
        _time(key.previous_until),
        key.version,
    )


def _key(row: Any) -> ApiKey:
    labels, budget = row["labels"], row["budget_nano_credits"]
    return ApiKey(
        row["id"],
        sys.intern(row["account_id"]),
        row["name"],
        row["secret_sha256"],
        row["created_at"].timestamp(),
        _seconds(row["revoked_at"]),
        _seconds(row["expires_at"]),
        json.loads(labels) if labels else NO_LABELS,
        _scope(row["endpoints"]),
        _scope(row["models"]),
        _limits(row["limits"]),
        None if budget is None else _budget(budget, row["budget_period"]),
        row["previous_sha256"],
        _seconds(row["previous_until"]),
        row["version"],
    )


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


def _time(at: float | None) -> datetime | None:
    return None if at is None else datetime.fromtimestamp(at, UTC)


def _scope(names: list[str] | None) -> frozenset[str]:
    return _shared(tuple(names)) if names else ANY


# Many keys have the same terms, and share them in memory.
@lru_cache(maxsize=4096)
def _shared(names: tuple[str, ...]) -> frozenset[str]:
    return frozenset(names)


@lru_cache(maxsize=4096)
def _limits(text: str | None) -> RateLimits | None:
    return RateLimits(**json.loads(text)) if text else None


@lru_cache(maxsize=4096)
def _budget(nano_credits: int, period: str) -> Budget:
    return Budget(nano_credits, BudgetPeriod(period))
