"""What other services tell of: kept in the database, and followed from there into memory."""

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Protocol

from prometheus_client import Gauge

from dozen_gateway.domain.state import Account, Model, Price, Snapshot, State
from dozen_gateway.errors import NotLoaded

KEYS = Gauge("dozen_gateway_loaded_keys", "API keys in memory, revoked ones too.")
ACCOUNTS = Gauge("dozen_gateway_loaded_accounts", "Accounts in memory.")


class ReadModels(Protocol):
    """The read models of the database; each change is told to every replica."""

    async def save_accounts(self, accounts: Mapping[str, Account]) -> None:
        """Keep the accounts whose version is newer than what is kept."""
        ...

    async def save_model(self, model: Model, registered_at: datetime) -> None:
        """Keep a model, unless a later registration of it is kept."""
        ...

    async def save_price(self, model_id: str, price: Price) -> None:
        """Keep a price of a model; one that is kept already stays as it is."""
        ...

    async def save_health(self, deployment_id: str, usable: bool, observed_at: datetime) -> None:
        """Keep whether a deployment may take requests, unless a later observation is kept."""
        ...

    def changes(self) -> AsyncIterator[Snapshot]:
        """Give all there is, and then each change, without end."""
        ...


class ReadModelService:
    """Keeps the read models, and the state in memory that follows them."""

    def __init__(self, store: ReadModels, state: State) -> None:
        self._store = store
        self._state = state

    async def record_accounts(self, accounts: Mapping[str, Account]) -> None:
        """Take over balances."""
        await self._store.save_accounts(accounts)

    async def record_model(self, model: Model, registered_at: datetime) -> None:
        """Take over an entry of the catalogue, whole."""
        await self._store.save_model(model, registered_at)

    async def record_price(self, model_id: str, price: Price) -> None:
        """Take over a price."""
        await self._store.save_price(model_id, price)

    async def record_health(self, deployment_id: str, usable: bool, observed_at: datetime) -> None:
        """Take over the health of a deployment."""
        await self._store.save_health(deployment_id, usable, observed_at)

    async def follow(self) -> None:
        """Keep the state in step with the database; while that is away, the state stays as it was."""
        async for snapshot in self._store.changes():
            self._state.learn(snapshot)
            KEYS.set(len(self._state.keys))
            ACCOUNTS.set(len(self._state.accounts))

    async def ping(self) -> None:
        """Raise until the state has been loaded."""
        if not self._state.loaded:
            raise NotLoaded()
