"""Gateways: their own code, on a database in memory that tells each of them of changes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.message import Message

from dozen_chassis.events import Delivery
from dozen_gateway.domain.holds import Settlement, Settlements
from dozen_gateway.domain.keys import ApiKey
from dozen_gateway.domain.limits import Cost
from dozen_gateway.domain.route_table import ROUTES
from dozen_gateway.domain.state import Account, Model, Price, Snapshot, State
from dozen_gateway.handlers import HANDLERS
from dozen_gateway.service.decisions import DecisionService
from dozen_gateway.service.holds import HoldService
from dozen_gateway.service.leases import LeaseService
from dozen_gateway.service.read_models import ReadModelService
from simulation.plan import Plan
from simulation.transport import Link
from simulation.world import World

_ADDRESSES = {route.service: f"http://{route.service}" for route in ROUTES}
_BEAT_SECONDS = 4.0
_STATE_AGE = 15.0
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

Changed = Mapping[str, Collection[str]]
"""What has to be read anew, by kind."""


@dataclass
class GatewayTables:
    """The database that all gateways share."""

    world: World
    catalogue: Snapshot
    """Keys, models and prices."""
    accounts: dict[str, Account] = field(default_factory=dict)
    settlements: dict[str, Settlement] = field(default_factory=dict)
    sessions: "list[Session]" = field(default_factory=list)

    def change_key(self, key: ApiKey) -> None:
        """Keep a key as it is now."""
        self.catalogue = replace(self.catalogue, keys={**self.catalogue.keys, key.id: key})
        self.tell({"keys": [key.id]})

    def tell(self, changed: Changed) -> None:
        """Tell each gateway that is connected."""
        for session in self.sessions:
            session.hear(changed)


class Session:
    """One gateway's connections to the database."""

    def __init__(self, tables: GatewayTables) -> None:
        self._tables = tables
        self._world = tables.world
        self._inbox: asyncio.Queue[Changed | None] | None = None
        self._away_until = 0.0
        tables.sessions.append(self)

    def hear(self, changed: Changed) -> None:
        """Get word of a change."""
        if self._inbox is not None:
            self._inbox.put_nowait(changed)

    def cut(self, seconds: float) -> None:
        """Lose the connection, with all that was on its way."""
        self._away_until = self._world.time + seconds
        if self._inbox is not None:
            while not self._inbox.empty():
                self._inbox.get_nowait()
            self._inbox.put_nowait(None)
            self._inbox = None

    def end(self) -> None:
        """Be gone for good."""
        self._inbox = None
        self._tables.sessions.remove(self)

    async def changes(self) -> AsyncIterator[Snapshot]:
        """Give everything, and then each change."""
        while True:
            inbox = self._inbox = asyncio.Queue()
            changed: Changed | None = None
            while True:
                await self._world.pause(0.3, 0.1)
                yield self._read(changed)
                if (changed := await inbox.get()) is None:
                    break
            await self._return()

    def _read(self, changed: Changed | None) -> Snapshot:
        if changed is None:
            known = self._tables.catalogue
            return Snapshot(
                whole=True,
                keys=known.keys,
                accounts=dict(self._tables.accounts),
                models=known.models,
                prices=known.prices,
                settled=None,
            )
        return Snapshot(
            keys={key_id: self._tables.catalogue.keys[key_id] for key_id in changed.get("keys", ())},
            accounts={name: self._tables.accounts[name] for name in changed.get("accounts", ())},
            settled={
                request_id: self._tables.settlements[request_id]
                for request_id in changed.get("settlements", ())
            },
        )

    async def _return(self) -> None:
        while self._world.time < self._away_until:
            await self._world.wait(self._away_until - self._world.time)

    async def save_accounts(
        self, accounts: Mapping[str, Account], settlements: Settlements | None = None
    ) -> None:
        await self._world.pause(0.2, 0.1)
        kept, settled = self._tables.accounts, self._tables.settlements
        newer = [
            name for name, one in accounts.items() if name not in kept or kept[name].version < one.version
        ]
        kept.update({name: accounts[name] for name in newer})
        fresh = [request_id for request_id in settlements or {} if request_id not in settled]
        settled.update({request_id: (settlements or {})[request_id] for request_id in fresh})
        if newer or fresh:
            self._tables.tell({"accounts": list(accounts), "settlements": list(settlements or {})})

    async def settlements(self, request_ids: Collection[str]) -> dict[str, Settlement]:
        await self._return()
        await self._world.pause(0.2, 0.1)
        kept = self._tables.settlements
        return {request_id: kept[request_id] for request_id in sorted(request_ids) if request_id in kept}

    async def forget_settlements(self, older_than: timedelta, limit: int) -> int:
        return 0

    async def beat(self) -> None:
        if self._world.time >= self._away_until:
            self._tables.tell({})

    async def save_model(self, model: Model, registered_at: datetime) -> None:
        raise NotImplementedError

    async def save_price(self, model_id: str, price: Price) -> None:
        raise NotImplementedError

    async def save_health(self, deployment_id: str, usable: bool, observed_at: datetime) -> None:
        raise NotImplementedError


class NoLimits:
    """Bounds nothing."""

    async def draw(self, costs: tuple[Cost, ...]) -> None:
        """Grant nothing."""

    def finish(self, costs: tuple[Cost, ...], used_tokens: int) -> None:
        """Take nothing back."""


class NoNews:
    """Knows no key that is not in memory."""

    async def look_up(self, api_key: str) -> bool:
        """Find nothing."""
        return False


class Gateway:
    """One process, from its start to its end."""

    def __init__(
        self,
        world: World,
        plan: Plan,
        name: str,
        state: State,
        tables: GatewayTables,
        link: Link,
        hears: Callable[[], bool],
        lease_service: type[LeaseService],
        hold_service: type[HoldService],
    ) -> None:
        self._world = world
        self._plan = plan
        self.name = name
        self.is_alive = True
        self.takes_requests = True
        self._clock_is_off = 0.0
        self.link = link
        self._session = Session(tables)
        self.state = state
        time = world.loop.time
        limits = NoLimits()
        self.holds = hold_service(
            self.state, limits, hears, longest_request=plan.longest_request, clock=self._clock, monotonic=time
        )
        self.leases = lease_service(self.state, link, monotonic=time)
        self.read_models = ReadModelService(
            self._session, self.state, self.holds, max_age=_STATE_AGE, clock=self._clock
        )
        self.decisions = DecisionService(
            self.state, self.leases, limits, self.holds, NoNews(), _ADDRESSES, b"master",
            clock=self._clock, monotonic=time, draw=world.random,
        )  # fmt: skip
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in the order of their start
        self.run(self.read_models.follow())
        self.run(self._every(1.0, self.holds.sweep))
        self.run(self._every(1.0, self.leases.sweep))
        self.run(self._every(_BEAT_SECONDS, self.read_models.beat))

    def run(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Do work of this process, which ends with it."""
        task = self._world.start(work)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.pop(task)
        if not task.cancelled() and (error := task.exception()):
            self._world.expect(False, f"{self.name} failed with {error!r}")

    def jump(self, seconds: float) -> None:
        """Set the clock by which dates are told."""
        self._world.note(f"the clock of {self.name} jumps by {seconds:.0f} s")
        self._clock_is_off += seconds

    def cut(self, seconds: float) -> None:
        """Lose the database for some time."""
        self._world.note(f"{self.name} loses its database for {seconds:.2f} s")
        self._session.cut(seconds)

    def crash(self) -> None:
        """End at once."""
        if self.is_alive:
            self._world.note(f"{self.name} crashes with {len(self.state.holds)} holds")
            self._end()

    async def stop(self) -> None:
        """End in order: take no requests, give back what is free."""
        self._world.note(f"{self.name} stops with {len(self.state.holds)} holds")
        self.takes_requests = False
        await self.leases.__aexit__(None, None, None)
        if self.is_alive:
            self._end()

    async def take(self, event: Message) -> None:
        """Handle an event."""
        delivery = Delivery(id="", attempt=1, published_at=_EPOCH)
        await HANDLERS[type(event)](event, delivery, self.read_models)

    def _end(self) -> None:
        self.is_alive = self.takes_requests = False
        self.link.is_dead = True
        self._session.end()
        for task in list(self._tasks):
            task.cancel()

    async def _every(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._world.wait(seconds * (0.8 + 0.4 * self._world.random.random()))
            await work()

    def _clock(self) -> float:
        return _EPOCH.timestamp() + self._world.time + self._clock_is_off
