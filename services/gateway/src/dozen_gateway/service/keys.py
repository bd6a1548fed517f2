"""The administration of API keys."""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dozen.gateway.v1.gateway_events_pb2 import ApiKeyCreated, ApiKeyRevoked, ApiKeysAnnounced, ApiKeyUpdated
from dozen_chassis.errors import InvalidRequest
from dozen_gateway.domain.key_requests import (
    REMEMBERED_SECONDS,
    Answered,
    KeyRequest,
    create_request,
    derive_secret,
    is_idempotency_key,
    rotate_request,
)
from dozen_gateway.domain.key_terms import KeyTerms, TermChanges, changed, faults, new_key, terms_of
from dozen_gateway.domain.keys import (
    ACCOUNT_ID,
    DEFAULT_GRACE_SECONDS,
    LONGEST_GRACE_SECONDS,
    ApiKey,
    KeyParts,
    hash_secret,
    is_restricted,
    revoked,
    with_secret,
    write_key,
)
from dozen_gateway.domain.state import Snapshot, State
from dozen_gateway.errors.keys import (
    AnswerLost,
    IdempotencyKeyReused,
    InsufficientPermissions,
    InvalidAccountId,
    InvalidIdempotencyKey,
    KeyNotFound,
    TooManyKeys,
)
from dozen_gateway.service.key_messages import api_key_message
from dozen_gateway.service.key_store import KeyStore

MOST_KEYS = 1000
"""Of an account, not counting revoked ones."""

_ANNOUNCED_TOGETHER = 200
_FORGOTTEN_TOGETHER = 1000


@dataclass(frozen=True, slots=True)
class Issued:
    """A key with its whole text, which is kept nowhere."""

    key: ApiKey
    text: str
    is_replayed: bool = False
    """Whether this was the answer before, to the same request."""


class KeyService:
    """Makes, changes, lists and revokes API keys."""

    def __init__(
        self, store: KeyStore, state: State, secrets_key: bytes, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._state = state
        self._secrets_key = secrets_key
        self._clock = clock

    async def create(self, account: str, terms: KeyTerms, idempotency_key: str | None = None) -> Issued:
        """Make a key.

        The account need not be known yet: its key is admitted as soon as it has credits.
        """
        if not ACCOUNT_ID.fullmatch(account):
            raise InvalidAccountId(param="account_id")
        _check(terms)
        request = None
        if idempotency_key is not None:
            request = create_request(account, _checked(idempotency_key), terms)
        async with self._store.transaction() as tx:
            await tx.lock_account(account)
            if earlier := await self._answered(tx, request):
                return earlier
            now = self._now()
            _check_expiry(terms, now)
            if await tx.count_keys(account) >= MOST_KEYS:
                raise TooManyKeys()
            key_id = f"key_{secrets.token_hex(8)}"
            secret = self._secret(request, key_id, now)
            key = new_key(key_id, account, terms, hash_secret(secret), now)
            await tx.add_key(key)
            await tx.emit(ApiKeyCreated(api_key=api_key_message(key)))
            await _remember(tx, request, key, now)
        return self._issued(key, secret)

    async def get(self, account: str, key_id: str) -> ApiKey:
        """Give a key that is not revoked."""
        return await _find(self._store, account, key_id)

    async def list(
        self, account: str, *, limit: int, after: str | None = None, newest_first: bool = True
    ) -> tuple[Sequence[ApiKey], bool]:
        """List keys that are not revoked, from behind the key `after`; tell whether there are more."""
        found = await self._store.list_keys(
            account, limit=limit + 1, after=after, newest_first=newest_first, revoked=False
        )
        return found[:limit], len(found) > limit

    async def list_all(self, account: str) -> Sequence[ApiKey]:
        """List the newest keys of an account, revoked ones too."""
        return await self._store.list_keys(
            account, limit=MOST_KEYS, after=None, newest_first=True, revoked=True
        )

    async def update(self, account: str, key_id: str, changes: TermChanges) -> ApiKey:
        """Change terms of a key; its id and its secrets stay."""
        async with self._store.transaction() as tx:
            await tx.lock_account(account)
            known = await _find(tx, account, key_id)
            key = changed(known, changes)
            if key is known:
                return key
            terms = terms_of(key)
            _check(terms)
            if key.expires_at != known.expires_at:
                _check_expiry(terms, self._now())
            await tx.save_key(key)
            await tx.emit(ApiKeyUpdated(api_key=api_key_message(key)))
        self._learn(key)
        return key

    async def rotate(
        self,
        account: str,
        key_id: str,
        *,
        grace: float = DEFAULT_GRACE_SECONDS,
        idempotency_key: str | None = None,
    ) -> Issued:
        """Give a key a new secret; for `grace` seconds the present one is accepted too."""
        if not 0 <= grace <= LONGEST_GRACE_SECONDS:
            longest = round(LONGEST_GRACE_SECONDS)
            raise InvalidRequest(f"A grace period is between 0 and {longest} seconds.", param="grace_seconds")
        request = None
        if idempotency_key is not None:
            request = rotate_request(account, _checked(idempotency_key), key_id, grace)
        async with self._store.transaction() as tx:
            await tx.lock_account(account)
            if earlier := await self._answered(tx, request):
                return earlier
            known = await _find(tx, account, key_id)
            now = self._now()
            secret = self._secret(request, key_id, now)
            key = with_secret(known, hash_secret(secret), now, grace)
            await tx.save_key(key)
            await tx.emit(ApiKeyUpdated(api_key=api_key_message(key)))
            await _remember(tx, request, key, now)
        return self._issued(key, secret)

    async def revoke(self, account: str, key_id: str) -> ApiKey:
        """Refuse a key from now on; revoking twice changes nothing."""
        async with self._store.transaction() as tx:
            await tx.lock_account(account)
            known = await tx.find_key(account, key_id)
            if known is None:
                raise KeyNotFound()
            if known.revoked_at is not None:
                return known
            key = revoked(known, self._now())
            await tx.save_key(key)
            await tx.emit(ApiKeyRevoked(api_key=api_key_message(key)))
        self._learn(key)
        return key

    async def check_administrator(self, account: str, key_id: str) -> None:
        """Raise unless a key may administer the keys of its account, as it is kept at this moment."""
        key = await self._store.find_key(account, key_id)
        if key is None or key.revoked_at is not None or is_restricted(key):
            raise InsufficientPermissions()

    async def announce(self) -> None:
        """Tell of all keys again, so that a service with an empty database comes to know them."""
        after = ""
        while True:
            async with self._store.transaction() as tx:
                page = await tx.page_keys(after, _ANNOUNCED_TOGETHER)
                if not page:
                    return
                await tx.emit(ApiKeysAnnounced(api_keys=[api_key_message(key) for key in page]))
            after = page[-1].id

    async def forget_answers(self) -> None:
        """Drop what idempotency keys stood for until a day ago."""
        before = self._now() - REMEMBERED_SECONDS
        while await self._store.forget_answers(before, _FORGOTTEN_TOGETHER):
            pass

    def _now(self) -> float:
        return round(self._clock(), 6)  # as exact as the database is

    def _secret(self, request: KeyRequest | None, key_id: str, at: float) -> str:
        if request is None:
            return secrets.token_hex(24)
        return derive_secret(self._secrets_key, request, key_id, at)

    async def _answered(self, tx: KeyStore, request: KeyRequest | None) -> Issued | None:
        if request is None:
            return None
        answered = await tx.find_answer(request, self._now() - REMEMBERED_SECONDS)
        if answered is None:
            return None
        if answered.fingerprint != request.fingerprint:
            raise IdempotencyKeyReused()
        key = answered.key
        secret = derive_secret(self._secrets_key, request, key.id, answered.at)
        if hash_secret(secret) != key.secret_sha256:
            raise AnswerLost()
        return Issued(key, write_key(KeyParts(key.account, key.id, secret)), is_replayed=True)

    def _issued(self, key: ApiKey, secret: str) -> Issued:
        self._learn(key)
        return Issued(key, write_key(KeyParts(key.account, key.id, secret)))

    def _learn(self, key: ApiKey) -> None:
        self._state.learn(Snapshot(keys={key.id: key}))  # for who uses it before the database has told us


async def _find(store: KeyStore, account: str, key_id: str) -> ApiKey:
    key = await store.find_key(account, key_id)
    if key is None or key.revoked_at is not None:
        raise KeyNotFound()
    return key


async def _remember(tx: KeyStore, request: KeyRequest | None, key: ApiKey, at: float) -> None:
    if request is not None:
        await tx.save_answer(request, Answered(request.fingerprint, key, at))


def _checked(idempotency_key: str) -> str:
    if not is_idempotency_key(idempotency_key):
        raise InvalidIdempotencyKey()
    return idempotency_key


def _check(terms: KeyTerms) -> None:
    for fault in faults(terms):
        raise InvalidRequest(f"{fault.param} {fault.should}.", param=fault.param)


def _check_expiry(terms: KeyTerms, now: float) -> None:
    if terms.expires_at is not None and terms.expires_at <= now:
        raise InvalidRequest("expires_at must be in the future.", param="expires_at")
