"""The state follows the database."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from dozen_gateway.domain.state import Account, Model, Price, Snapshot, State
from dozen_gateway.errors import NotLoaded
from dozen_gateway.service.read_models import ACCOUNTS, ReadModelService


@dataclass
class FakeReadModels:
    """Tells of what is put into its queue; None says that the test has seen enough."""

    told: asyncio.Queue[Snapshot | None] = field(default_factory=asyncio.Queue)

    async def save_accounts(self, accounts: Mapping[str, Account]) -> None: ...

    async def save_model(self, model: Model, registered_at: datetime) -> None: ...

    async def save_price(self, model_id: str, price: Price) -> None: ...

    async def save_health(self, deployment_id: str, usable: bool, observed_at: datetime) -> None: ...

    async def changes(self) -> AsyncIterator[Snapshot]:
        while (snapshot := await self.told.get()) is not None:
            yield snapshot


async def test_the_gateway_is_not_ready_until_the_state_is_loaded() -> None:
    store, state = FakeReadModels(), State()
    read_models = ReadModelService(store, state)
    with pytest.raises(NotLoaded):
        await read_models.ping()
    store.told.put_nowait(Snapshot(whole=True, accounts={"acme": Account(5, 1)}))
    store.told.put_nowait(Snapshot(accounts={"other": Account(7, 1)}))
    store.told.put_nowait(None)
    await read_models.follow()
    await read_models.ping()
    assert state.accounts == {"acme": Account(5, 1), "other": Account(7, 1)}
    (sample,) = next(iter(ACCOUNTS.collect())).samples
    assert sample.value == 2
