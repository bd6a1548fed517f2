"""The network between the parts: calls to credits as of gRPC, and events as of JetStream."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from dozen_chassis.errors import ServiceError
from dozen_credits.domain import leases as credits_leases
from dozen_credits.domain.leases import Period
from dozen_credits.domain.metering import Usage
from dozen_credits.errors.accounts import AccountNotFound
from dozen_gateway.domain.leases import LeaseAnswer, LeaseWish
from dozen_gateway.domain.state import State
from dozen_gateway.errors.decisions import CreditsUnavailable
from simulation.bank import Bank
from simulation.plan import Plan
from simulation.promises import Promises
from simulation.world import World

_DEADLINE = 2.0
_SLOW_SECONDS = 4.0
_ATTEMPTS = 3
_ABANDONED = 0

Result = TypeVar("Result")
Work = Callable[[], Coroutine[Any, Any, Result]]


class Link:
    """The calls of one gateway to credits."""

    def __init__(
        self, world: World, plan: Plan, bank: Bank, promises: Promises, state: State, name: str
    ) -> None:
        self.state = state
        self._world = world
        self._faults = plan.faults
        self._bank = bank
        self._promises = promises
        self._name = name
        self.is_dead = False
        """Whether the gateway is no more; what it sent before may arrive yet."""
        self._slow_until = 0.0
        self._cut_until = 0.0

    def cut(self, seconds: float) -> None:
        """Let nothing arrive for some time, after some in which answers arrive late."""
        self._world.note(f"{self._name} can hardly, then not reach credits for {seconds:.2f} s")
        self._slow_until = self._world.time + _SLOW_SECONDS
        self._cut_until = self._slow_until + seconds

    async def acquire(self, wish: LeaseWish) -> LeaseAnswer:
        """Ask for a lease."""
        self._world.note(f"{self._name} asks {wish.needed} to {wish.wanted} for {wish.account} {wish.key}")
        answer = await self._call("acquire", partial(self._acquire, wish))
        name = self._promises.name(answer.lease_id)
        self._world.note(f"{self._name} has {answer.granted} in {name}, {answer.added} more")
        return answer

    async def release(self, lease_id: str, held: int) -> tuple[int, bool]:
        """Give back what is not held."""
        name = self._promises.name(lease_id)
        self._world.note(f"{self._name} releases {name} except {held}")
        granted, closed = await self._call("release", partial(self._release, lease_id, held))
        self._world.note(f"{self._name} keeps {granted} in {name}{', closed' if closed else ''}")
        return granted, closed

    async def _acquire(self, wish: LeaseWish) -> LeaseAnswer:
        budget = None
        if wish.budget is not None:
            period = Period(wish.budget.period.value)
            budget = credits_leases.Budget(wish.key, wish.budget.nano_credits, period)
        try:
            acquired = await self._bank.leases.acquire(
                credits_leases.LeaseWish(
                    wish.account, wish.holder, wish.needed, wish.wanted, wish.token, budget
                )
            )
        except AccountNotFound:
            return LeaseAnswer("", 0, 0, 0.0, 0, 0, None)
        lease = acquired.lease
        return LeaseAnswer(
            lease_id=lease.id if lease else "",
            granted=lease.nano_credits - lease.returned if lease else 0,
            added=acquired.added,
            lifetime=self._bank.leases.lifetime.total_seconds(),
            available=acquired.balance.available,
            version=acquired.balance.version,
            rest=acquired.budget_left,
        )

    async def _release(self, lease_id: str, held: int) -> tuple[int, bool]:
        lease = await self._bank.leases.release(lease_id, held)
        return lease.nano_credits - lease.returned, lease.closed_at is not None

    async def _call(self, what: str, work: Work[Result]) -> Result:
        answer: asyncio.Future[Result] = self._world.loop.create_future()
        timer = self._world.loop.call_later(_DEADLINE, _fail, answer)
        try:
            self._send(what, work, answer, _ATTEMPTS)
            return await answer
        except CreditsUnavailable:
            self._world.note(f"{self._name} has no answer to {what}")
            raise
        finally:
            timer.cancel()

    def _send(self, what: str, work: Work[Result], answer: "asyncio.Future[Result]", attempts: int) -> None:
        world, random = self._world, self._world.random
        if answer.done() or self.is_dead:
            return
        if world.happens(self._faults.lost) or self._is_cut:
            return
        delay = random.random() * 0.03
        if world.happens(self._faults.slow):
            delay = random.random() * 5
        if world.happens(self._faults.broken):
            world.later(random.random() * 0.2, self._broke, what, work, answer, attempts)
            if random.random() < 0.5:
                delay = random.random() * 2
                world.later(delay, self._arrive, what, work, world.loop.create_future(), _ABANDONED)
            return
        world.later(delay, self._arrive, what, work, answer, attempts)

    @property
    def _is_cut(self) -> bool:
        return self._slow_until < self._world.time < self._cut_until and not self._world.is_calm

    def _broke(self, what: str, work: Work[Result], answer: "asyncio.Future[Result]", attempts: int) -> None:
        """Try again, as gRPC does where the connection breaks or nobody listens."""
        if attempts > 1:
            delay = self._world.random.random() * 0.1
            self._world.later(delay, self._send, what, work, answer, attempts - 1)
        elif attempts != _ABANDONED:
            _fail(answer)

    def _arrive(self, what: str, work: Work[Result], answer: "asyncio.Future[Result]", attempts: int) -> None:
        if not self._bank.is_up:
            self._broke(what, work, answer, attempts)
            return
        if answer.done() or attempts == _ABANDONED:
            self._world.note(f"{what} of {self._name} arrives late")
        self._bank.serve(work()).add_done_callback(partial(self._done, what, work, answer, attempts))

    def _done(
        self,
        what: str,
        work: Work[Result],
        answer: "asyncio.Future[Result]",
        attempts: int,
        task: "asyncio.Task[Result]",
    ) -> None:
        world = self._world
        if task.cancelled():
            self._broke(what, work, answer, attempts)
        elif isinstance(error := task.exception(), ServiceError):
            if attempts != _ABANDONED:
                world.later(world.random.random() * 0.03, _fail, answer)
        elif error is not None:
            world.expect(False, f"{what} of {self._name} failed with {error!r}")
        elif not world.happens(self._faults.lost):
            slow = world.happens(self._faults.slow) or world.time < self._slow_until
            delay = world.random.random() * (_DEADLINE + 0.5 if slow else 0.03)
            world.later(delay, self._answer, answer, task.result())

    def _answer(self, answer: "asyncio.Future[Result]", result: Result) -> None:
        if not answer.done() and not self.is_dead:
            answer.set_result(result)


class Bus:
    """Delivers events at least once, in any order."""

    def __init__(self, world: World, plan: Plan) -> None:
        self._world = world
        self._faults = plan.faults
        self._down_until = 0.0
        self.in_flight = 0

    @property
    def is_up(self) -> bool:
        """Whether anything is delivered."""
        return self._world.time >= self._down_until

    def cut(self, seconds: float) -> None:
        """Deliver nothing for some time."""
        self._world.note(f"NATS is away for {seconds:.2f} s")
        self._down_until = self._world.time + seconds

    def deliver(self, receive: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        """Call a receiver until it says that it is done, and perhaps once more."""
        self._world.start(self._deliver(receive))

    async def _deliver(self, receive: Callable[[], Coroutine[Any, Any, bool]]) -> None:
        world, random = self._world, self._world.random
        self.in_flight += 1
        more = True
        while more:
            late = world.happens(self._faults.late)
            await world.wait(random.random() * (2 if late else 0.05))
            while not self.is_up:
                await world.wait(self._down_until - world.time)
            more = not await receive() or world.happens(self._faults.repeated)
        self.in_flight -= 1


class Reports:
    """Usage on its way to credits."""

    def __init__(self, world: World, bank: Bank, bus: Bus) -> None:
        self._world = world
        self._bank = bank
        self._bus = bus

    def send(self, records: Sequence[Usage]) -> None:
        """Report usage in one message."""
        self._bus.deliver(partial(self._receive, records))

    async def _receive(self, records: Sequence[Usage]) -> bool:
        if not self._bank.is_up:
            await self._world.wait(0.2)
            return False
        ids = " ".join(one.request_id for one in records)
        task = self._bank.serve(self._bank.metering.charge(records, 1))
        await asyncio.wait((task,))
        if task.cancelled():
            return False
        if error := task.exception():
            self._world.expect(False, f"usage of {ids} failed with {error!r}")
            return True
        self._world.note(f"usage of {ids} is taken")
        return True


def _fail(answer: "asyncio.Future[Result]") -> None:
    if not answer.done():
        answer.set_exception(CreditsUnavailable())
