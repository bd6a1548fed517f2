"""The administration of API keys."""

import secrets
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Protocol

from google.protobuf.message import Message

from dozen.gateway.v1 import gateway_pb2
from dozen.gateway.v1.gateway_events_pb2 import ApiKeyCreated, ApiKeyRevoked
from dozen_chassis.errors import InvalidRequest
from dozen_gateway.domain.keys import ACCOUNT_ID, ApiKey, KeyParts, hash_secret, write_key
from dozen_gateway.domain.state import Snapshot, State
from dozen_gateway.errors import InvalidAccountId, KeyNotFound, TooManyKeys

MOST_NAME_CHARACTERS = 100
MOST_KEYS = 1000
"""Of an account, not counting revoked ones."""


class KeyStore(Protocol):
    """Where keys are kept."""

    def transaction(self) -> AbstractAsyncContextManager["KeyStore"]:
        """Give the same store in one transaction."""
        ...

    async def emit(self, event: Message) -> None:
        """Publish an event once the transaction has committed."""
        ...

    async def add_key(self, key: ApiKey) -> None:
        """Keep a new key, and tell every replica."""
        ...

    async def count_keys(self, account: str) -> int:
        """Count the keys of an account that are not revoked."""
        ...

    async def find_key(self, account: str, key_id: str) -> ApiKey | None:
        """Give a key of an account."""
        ...

    async def list_keys(
        self, account: str, *, limit: int, after: str | None, newest_first: bool, revoked: bool
    ) -> list[ApiKey]:
        """List the keys of an account that follow the key `after`, revoked ones only where wanted."""
        ...

    async def revoke_key(self, account: str, key_id: str, revoked_at: datetime) -> bool:
        """Revoke a key, and tell every replica; False where there is none that is not revoked."""
        ...


class KeyService:
    """Makes, lists and revokes API keys."""

    def __init__(self, store: KeyStore, state: State) -> None:
        self._store = store
        self._state = state

    async def create(self, account: str, name: str) -> tuple[ApiKey, str]:
        """Make a key; give it together with its whole text, which is kept nowhere.

        The account need not be known yet: its key is admitted as soon as it has credits.
        """
        if not ACCOUNT_ID.fullmatch(account):
            raise InvalidAccountId(param="account_id")
        if len(name) > MOST_NAME_CHARACTERS:
            raise InvalidRequest(f"A key's name has at most {MOST_NAME_CHARACTERS} characters.", param="name")
        parts = KeyParts(account, f"key_{secrets.token_hex(8)}", secrets.token_hex(24))
        key = ApiKey(parts.id, account, name, hash_secret(parts.secret), datetime.now(UTC))
        async with self._store.transaction() as tx:
            if await tx.count_keys(account) >= MOST_KEYS:
                raise TooManyKeys()
            await tx.add_key(key)
            await tx.emit(ApiKeyCreated(api_key=api_key_message(key)))
        self._state.learn(Snapshot(keys={key.id: key}))  # for who uses it before the database has told us
        return key, write_key(parts)

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

    async def revoke(self, account: str, key_id: str) -> ApiKey:
        """Refuse a key from now on; revoking twice changes nothing."""
        async with self._store.transaction() as tx:
            revoked = await tx.revoke_key(account, key_id, datetime.now(UTC))
            key = await tx.find_key(account, key_id)
            if key is None:
                raise KeyNotFound()
            if revoked:
                await tx.emit(ApiKeyRevoked(api_key=api_key_message(key)))
        return key


def api_key_message(key: ApiKey) -> gateway_pb2.ApiKey:
    """Give a key in the contract's form, without its secret."""
    message = gateway_pb2.ApiKey(id=key.id, account_id=key.account, name=key.name)
    message.created_at.FromDatetime(key.created_at)
    if key.revoked_at is not None:
        message.revoked_at.FromDatetime(key.revoked_at)
    return message
