"""The state follows the database."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from dozen_gateway.domain.holds import Hold, Settlement, Settlements
from dozen_gateway.domain.leases import Lease
from dozen_gateway.domain.state import Account, Model, Price, Snapshot, State
from dozen_gateway.errors.decisions import NotLoaded
from dozen_gateway.service.holds import HoldService
from dozen_gateway.service.read_models import ACCOUNTS, ReadModelService


@dataclass
class FakeReadModels:
    """Tells of what is put into its queue; None says that the test has seen enough."""

    told: asyncio.Queue[Snapshot | None] = field(default_factory=asyncio.Queue)

    settled: dict[str, Settlement] = field(default_factory=dict)

    async def settlements(self, request_ids: Collection[str]) -> dict[str, Settlement]:
        return {request: one for request, one in self.settled.items() if request in request_ids}

    async def forget_settlements(self, older_than: timedelta, limit: int) -> int:
        return 0

    async def beat(self) -> None: ...

    async def save_accounts(
        self, accounts: Mapping[str, Account], settlements: Settlements | None = None
    ) -> None: ...

    async def save_model(self, model: Model, registered_at: datetime) -> None: ...

    async def save_price(self, model_id: str, price: Price) -> None: ...

    async def save_health(self, deployment_id: str, usable: bool, observed_at: datetime) -> None: ...

    async def changes(self) -> AsyncIterator[Snapshot]:
        while (snapshot := await self.told.get()) is not None:
            yield snapshot


HoldsOn = Callable[[State], HoldService]


def read_models_of(
    store: FakeReadModels, state: State, holds_on: HoldsOn, now: float = 1000.0
) -> ReadModelService:
    return ReadModelService(store, state, holds_on(state), max_age=300, clock=lambda: now)


async def test_the_gateway_is_not_ready_until_the_state_is_loaded(holds_on: HoldsOn) -> None:
    store, state = FakeReadModels(), State()
    read_models = read_models_of(store, state, holds_on)
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


async def test_whatever_is_heard_makes_the_state_trusted_for_longer(holds_on: HoldsOn) -> None:
    store, state = FakeReadModels(), State()
    store.told.put_nowait(Snapshot())
    store.told.put_nowait(None)
    await read_models_of(store, state, holds_on, now=5000.0).follow()
    assert state.trusted_until == 5300.0


SETTLED = Settlement("lease_1", 15, 9)


@pytest.mark.parametrize("settled", [{"req_1": SETTLED, "req_other": SETTLED}, None])
async def test_holds_of_settled_requests_are_closed(
    holds_on: HoldsOn, settled: dict[str, Settlement] | None
) -> None:
    store, state, lease = FakeReadModels(), State(), Lease("lease_1")
    lease.granted = 100
    for request_id in ("req_1", "req_2"):
        state.holds.open(Hold(request_id, lease, 40, (), 0.0, 1e9))
    store.settled["req_1"] = SETTLED
    store.told.put_nowait(Snapshot(settled=settled))
    store.told.put_nowait(None)
    await read_models_of(store, state, holds_on).follow()
    assert list(state.holds.ids()) == ["req_2"]
    assert (lease.held, lease.settled, lease.free) == (40, 15, 45)
