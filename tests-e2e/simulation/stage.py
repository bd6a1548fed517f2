"""All parts of a run together, and what happens to them."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from google.protobuf.message import Message

from dozen_gateway.domain.keys import ApiKey, Budget, BudgetPeriod, KeyParts, hash_secret, write_key
from dozen_gateway.domain.state import Account, Deployment, Model, Price, Snapshot, State
from dozen_gateway.handlers import HANDLERS
from dozen_gateway.service.holds import HoldService
from dozen_gateway.service.leases import IDLE_SECONDS, LeaseService
from simulation.bank import PRICE_ID, Bank, open_leases
from simulation.books import Books
from simulation.gateway import Gateway, GatewayTables
from simulation.plan import PRICE, Plan
from simulation.promises import Promises
from simulation.traffic import OVERDUE, Clients, Service
from simulation.transport import Bus, Link, Reports
from simulation.verdict import judge
from simulation.world import World

_SERVICES = 2
_SECRET = "5ecret"
_PROBES = 5
_SLOWEST = 6.0
"""Longer than any call is on its way, and any process is away."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made of; tests break some of it."""

    books: type[Books] = Books
    lease_service: type[LeaseService] = LeaseService
    hold_service: type[HoldService] = HoldService
    link: type[Link] = Link
    clients: type[Clients] = Clients
    grace: float = 1.0
    """For how many times the longest request credits keep an expired lease."""


class Stage:
    """A world with credits, gateways, services and clients."""

    def __init__(self, world: World, plan: Plan, parts: Parts) -> None:
        self.world = world
        self.plan = plan
        self._parts = parts
        self._bus = Bus(world, plan)
        self._gateway_tables = GatewayTables(world, _catalogue(plan))
        self.bank = Bank(world, plan, self._publish, parts.books, parts.grace)
        self.promises = Promises(world, plan, self.bank.tables)
        self.bank.tables.on_commit += [self.promises.committed, self.bank.take_out]
        for account in plan.accounts:
            self.bank.open(account.id, account.balance)
            self._gateway_tables.accounts[account.id] = Account(account.balance, 2)
        reports = Reports(world, self.bank, self._bus)
        self._services = [
            Service(world, plan, self.bank, self.promises, reports, f"service{number + 1}")
            for number in range(_SERVICES)
        ]
        self.gateways: list[Gateway] = []
        self._started = 0
        for _ in range(plan.replicas):
            self._start_gateway()
        keys = [
            (key.account, key.id, write_key(KeyParts(key.account, key.id, _SECRET))) for key in _keys(plan)
        ]
        self.clients = parts.clients(world, plan, self.promises, self._services, lambda: self._taking, keys)

    async def play(self) -> None:
        """Let everything happen, then wait until all is quiet, and judge."""
        self._arrange()
        await self.world.wait(self.plan.busy_seconds)
        self.world.note("from now on nothing goes wrong")
        self.world.is_calm = True
        await self._quiet()
        judge(self.world, self.plan, self.bank, self.gateways, self.promises)
        for account in self.plan.accounts:
            await self._probe(account.id)

    @property
    def _taking(self) -> list[Gateway]:
        return [gateway for gateway in self.gateways if gateway.takes_requests]

    def _arrange(self) -> None:
        """Draw when what happens."""
        world, plan, random = self.world, self.plan, self.world.random
        events = [
            *[self.clients.call] * plan.calls,
            *[self._crash_gateway] * plan.gateway_crashes,
            *[lambda: self.bank.crash(random.random() * 2)] * plan.credits_crashes,
            *[lambda: random.choice(self._services).crash()] * plan.service_crashes,
            *[self._cut] * plan.cuts,
            *[lambda: random.choice(self.gateways).jump(random.uniform(-3600, 3600))] * plan.jumps,
            *[self._grant] * plan.grants,
            *[self._lift] * plan.lifts,
        ]
        for event in events:
            world.later(random.random() * plan.busy_seconds, event)

    def _start_gateway(self) -> None:
        self._started += 1
        name = f"gateway{self._started}"
        state = State()
        self.gateways.append(
            Gateway(
                self.world,
                self.plan,
                name,
                state,
                self._gateway_tables,
                self._parts.link(self.world, self.plan, self.bank, self.promises, state, name),
                lambda: self._bus.is_up,
                self._parts.lease_service,
                self._parts.hold_service,
            )
        )

    def _crash_gateway(self) -> None:
        random = self.world.random
        if self._taking:
            gateway = random.choice(self._taking)
            if random.random() < 0.3:
                gateway.run(gateway.stop())
            else:
                gateway.crash()
            self.world.later(random.random() * 3, self._start_gateway)

    def _cut(self) -> None:
        random = self.world.random
        which = random.randrange(4)
        if which == 0:
            self._bus.cut(random.random() * 3)
        elif self._taking:
            gateway = random.choice(self._taking)
            if which == 1:
                gateway.cut(random.random() * 5)
            else:
                gateway.link.cut(random.random() * 12)

    def _grant(self) -> None:
        account = self.world.random.choice(self.plan.accounts)
        # Somebody in an office, who tries again until it is done: that is not what may fail here.
        self.world.start(self.bank.grant(account.id, self.world.random.randint(1, 1000)))

    def _lift(self) -> None:
        """Take the budget of a key away: from then on it pays as the others of its account do."""
        keys = [key for key in self._gateway_tables.catalogue.keys.values() if key.budget]
        if keys:
            key = self.world.random.choice(keys)
            self.world.note(f"{key.id} has no budget any more")
            self.promises.unlimited.add(key.id)
            self._gateway_tables.change_key(replace(key, budget=None, version=key.version + 1))

    def _publish(self, event: Message) -> None:
        if type(event) in HANDLERS:
            self._bus.deliver(partial(self._receive, event))

    async def _receive(self, event: Message) -> bool:
        """Let any gateway handle an event; one that crashes meanwhile has not."""
        if not self._taking:
            await self.world.wait(0.3)
            return False
        gateway = self.world.random.choice(self._taking)
        task = gateway.run(gateway.take(event))
        await asyncio.wait((task,))
        return not task.cancelled()

    async def _quiet(self) -> None:
        """Wait as long as anything may take: usage, then settlement, expiry and return of what was leased."""
        plan = self.plan
        await self.world.wait(_SLOWEST)
        usage = plan.longest_request * ((OVERDUE + 1) if plan.is_overdue else 1)
        last = self.world.time + usage + plan.lifetime + plan.lease_seconds + 2 * IDLE_SECONDS
        while (self.world.time < last and not self._is_quiet()) or self.bank.is_busy:
            await self.world.wait(1)

    def _is_quiet(self) -> bool:
        return (
            not self._bus.in_flight
            and not self.clients.in_flight
            and not self.plan.is_overdue
            and not open_leases(self.bank.tables)
            and not any(service.is_busy for service in self._services)
            and not any(gateway.state.holds for gateway in self.gateways if gateway.is_alive)
        )

    async def _probe(self, account_id: str) -> None:
        """Make the smallest call, as long as an account has anything it succeeds."""
        available = self.bank.tables.balances[account_id].available
        cost = PRICE["input_tokens"] + PRICE["output_tokens"]
        codes: Counter[str] = Counter()
        for _ in range(_PROBES):
            if not (code := await self.clients.probe(account_id)):
                break
            codes[code] += 1
            await self.world.wait(2)
        admitted = codes.total() < _PROBES
        self.world.expect(
            admitted == (available >= cost),
            f"{account_id} has {available}, and a call for {cost} gets {dict(codes)}",
        )


def _keys(plan: Plan) -> Iterator[ApiKey]:
    for account in plan.accounts:
        secret = hash_secret(_SECRET)
        yield ApiKey(f"{account.id}_open", account.id, "open", secret, created_at=0)
        if budget := account.budget:
            period = BudgetPeriod.MONTH if budget.is_monthly else BudgetPeriod.TOTAL
            yield ApiKey(
                budget.key_id, account.id, "limited", secret, created_at=0,
                budget=Budget(budget.nano_credits, period),
            )  # fmt: skip


def _catalogue(plan: Plan) -> Snapshot:
    deployments = tuple(
        Deployment(f"smol-{service}", service, f"http://{service}", priority=1, weight=1)
        for service in ("completion", "images")
    )
    return Snapshot(
        whole=True,
        keys={key.id: key for key in _keys(plan)},
        models={"smol": Model("smol", frozenset({"completion", "images.analyses"}), 200, deployments)},
        prices={"smol": (Price(PRICE_ID, PRICE, 0),)},
    )
