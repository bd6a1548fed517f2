"""What other services tell of: kept in the database, and followed from there into memory."""

import gc
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Protocol

from prometheus_client import Gauge

from dozen_gateway.domain.holds import Settlement, Settlements
from dozen_gateway.domain.state import Account, Model, Price, Snapshot, State
from dozen_gateway.errors.decisions import NotLoaded
from dozen_gateway.service.holds import HoldService

KEYS = Gauge("dozen_gateway_loaded_keys", "API keys in memory, revoked ones too.")
ACCOUNTS = Gauge("dozen_gateway_loaded_accounts", "Accounts in memory.")

_SETTLEMENTS_KEPT = timedelta(hours=25)
"""As long as the longest admission lives, and then some."""
_FORGOTTEN_TOGETHER = 10_000
_MANY_KEYS = 10_000
"""Of a hundred thousand a full collection takes a tenth of a second."""


class ReadModels(Protocol):
    """The read models of the database; each change is told to every replica."""

    async def save_accounts(
        self, accounts: Mapping[str, Account], settlements: Settlements | None = None
    ) -> None:
        """Keep the accounts whose version is newer than what is kept, and what became of requests."""
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

    async def settlements(self, request_ids: Collection[str]) -> dict[str, Settlement]:
        """Give what became of those requests that are settled."""
        ...

    async def forget_settlements(self, older_than: timedelta, limit: int) -> int:
        """Drop settlements of that age; return how many."""
        ...

    async def beat(self) -> None:
        """Tell every replica that it would hear of changes."""
        ...

    def changes(self) -> AsyncIterator[Snapshot]:
        """Give all there is, and then each change, without end."""
        ...


class ReadModelService:
    """Keeps the read models, and the state in memory that follows them."""

    def __init__(
        self,
        store: ReadModels,
        state: State,
        holds: HoldService,
        *,
        max_age: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Past `max_age` seconds without word from the database the state is not trusted any more."""
        self._store = store
        self._state = state
        self._holds = holds
        self._max_age = max_age
        self._clock = clock

    async def record_accounts(
        self, accounts: Mapping[str, Account], settlements: Settlements | None = None
    ) -> None:
        """Take over balances, and what became of requests, for the replica that holds credits for each."""
        await self._store.save_accounts(accounts, settlements)

    async def forget_settlements(self) -> None:
        """Drop settlements that no hold waits for any more."""
        while await self._store.forget_settlements(_SETTLEMENTS_KEPT, _FORGOTTEN_TOGETHER):
            pass

    async def beat(self) -> None:
        """Make every replica hear from the database."""
        await self._store.beat()

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
            self._state.trusted_until = self._clock() + self._max_age
            await self._settle(snapshot.settled)
            if snapshot.whole and len(self._state.keys) > _MANY_KEYS:
                gc.collect()
                gc.freeze()  # else each full collection would look through them all, and all else would wait
            KEYS.set(len(self._state.keys))
            ACCOUNTS.set(len(self._state.accounts))

    async def _settle(self, settled: Settlements | None) -> None:
        if settled is None:
            waiting = list(self._state.holds.ids())
            settled = await self._store.settlements(waiting) if waiting else {}
        self._holds.settle(settled)

    async def ping(self) -> None:
        """Raise until the state has been loaded."""
        if not self._state.loaded:
            raise NotLoaded()
