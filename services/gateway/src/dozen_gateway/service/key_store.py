"""What the administration of API keys needs of a store."""

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from google.protobuf.message import Message

from dozen_gateway.domain.key_requests import Answered, KeyRequest
from dozen_gateway.domain.keys import ApiKey


class KeyStore(Protocol):
    """Where keys are kept; each change of one is told to every replica."""

    def transaction(self) -> AbstractAsyncContextManager["KeyStore"]:
        """Give the same store in one transaction."""
        ...

    async def emit(self, event: Message) -> None:
        """Publish an event once the transaction has committed."""
        ...

    async def lock_account(self, account: str) -> None:
        """Let no other transaction change the keys of an account until this one has ended."""
        ...

    async def add_key(self, key: ApiKey) -> None:
        """Keep a new key."""
        ...

    async def save_key(self, key: ApiKey) -> None:
        """Keep a key as it is now."""
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

    async def page_keys(self, after: str, limit: int) -> list[ApiKey]:
        """Give keys of all accounts, by id, and let nobody change them until the transaction has ended."""
        ...

    async def find_answer(self, request: KeyRequest, since: float) -> Answered | None:
        """Give what was done under a request's idempotency key."""
        ...

    async def save_answer(self, request: KeyRequest, answered: Answered) -> None:
        """Keep what was done for a request, in place of what its idempotency key stood for before."""
        ...

    async def forget_answers(self, before: float, limit: int) -> int:
        """Drop answers from before a time; tell how many there were."""
        ...
