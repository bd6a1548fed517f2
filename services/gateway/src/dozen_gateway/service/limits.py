"""The limiter: fetches permits for requests, and takes back what they did not use."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import uuid4

from prometheus_client import Counter

from dozen_chassis.tasks import end
from dozen_gateway.domain.allotment import Answer, Exchange
from dozen_gateway.domain.limits import Cost
from dozen_gateway.domain.permits import Permits
from dozen_gateway.errors.decisions import LimitsUnavailable

log = logging.getLogger(__name__)

DRAWS = Counter(
    "dozen_gateway_limit_draws", "Calls to the database for permits, by how they ended.", ["outcome"]
)
REFUSALS = Counter(
    "dozen_gateway_limit_refusals",
    "Requests whose limits had no room, as the database said.",
    ["kind", "measure"],
)

_FLUSH_SECONDS = 0.25
_FLUSHED_TOGETHER = 100
_ORDERS_TOGETHER = 64
_CALLS_TOGETHER = 4  # so that there are connections left for all else that the gateway asks the database
_REST_SECONDS = 0.25


class LimitStore(Protocol):
    """What all replicas share."""

    async def exchange(self, holder: str, exchange: Exchange) -> Answer:
        """Take back and share out; raise `LimitsUnavailable` where nobody knows whether that is done."""
        ...

    async def forget_limits(self) -> int:
        """Drop some of what nobody needs any more; return how much."""
        ...


@dataclass(frozen=True, slots=True)
class _Order:
    costs: tuple[Cost, ...]
    done: "asyncio.Future[None]"


class Limiter:
    """Exchanges permits with the database: for an account one call at a time, in the order of the requests.

    What is known of slots is said whole in each exchange, so that one that got lost is made good by the next.
    Permits of which that is not known are lost. Without the database there are no new ones: `draw` raises.
    """

    def __init__(
        self,
        store: LimitStore,
        permits: Permits,
        holder: str | None = None,
        *,
        patience: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Give up an exchange after `patience` seconds: what is drawn is of no use after one."""
        self._store = store
        self._permits = permits
        self._holder = holder or f"gateway-{uuid4().hex}"
        self._patience = patience
        self._monotonic = monotonic
        self._waiting: dict[str, deque[_Order]] = {}
        self._busy: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._calls = asyncio.Semaphore(_CALLS_TOGETHER)
        self._failed_at = float("-inf")
        self._urgent = asyncio.Event()

    async def draw(self, costs: tuple[Cost, ...]) -> None:
        """Fetch what `Permits.weigh` found missing; it is to be weighed again, and may be refused then."""
        account = costs[0].subject.account
        order = _Order(costs, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(account, deque()).append(order)
        if account not in self._busy:
            self._serve([account])
        await order.done

    def finish(self, taken: Sequence[Cost], used_tokens: int) -> None:
        """Give back slots, and tokens beyond those used; each cost, as it was taken, comes back once."""
        if self._permits.give_back(taken, used_tokens):
            self._urgent.set()

    async def forget(self) -> None:
        """Drop what the database does not need any more."""
        while await self._store.forget_limits():
            pass

    async def run(self) -> None:
        """Tell the database what comes back, and renew slots, until cancelled; give up everything then."""
        try:
            while True:
                try:
                    async with asyncio.timeout(_FLUSH_SECONDS):
                        await self._urgent.wait()
                except TimeoutError:
                    pass
                self._urgent.clear()
                self.flush()
        finally:
            await self._close()

    def flush(self) -> None:
        """Begin to tell the database what it should hear, of accounts of which no exchange is under way."""
        self._permits.sweep(self._monotonic())
        due = [account for account in self._permits.due() if account not in self._busy]
        for start in range(0, len(due), _FLUSHED_TOGETHER):
            self._serve(due[start : start + _FLUSHED_TOGETHER])

    def _serve(self, accounts: Collection[str]) -> None:
        self._busy.update(accounts)
        task = asyncio.create_task(self._work(accounts), name="limits")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _work(self, accounts: Collection[str]) -> None:
        """Do an exchange about accounts; then begin another for what has been ordered meanwhile."""
        orders: list[_Order] = []
        try:
            async with self._calls:
                if len(accounts) == 1:
                    orders = self._next_orders(*accounts)
                await self._exchange(accounts, orders)
        finally:
            for order in orders:
                if not order.done.done():
                    order.done.set_exception(LimitsUnavailable())
            self._busy.difference_update(accounts)
            for account in accounts:
                if account in self._waiting:
                    self._serve([account])

    def _next_orders(self, account: str) -> list[_Order]:
        waiting = self._waiting.get(account, deque())
        orders = [waiting.popleft() for _ in range(min(len(waiting), _ORDERS_TOGETHER))]
        if not waiting:
            self._waiting.pop(account, None)
        return [order for order in orders if not order.done.done()]

    async def _exchange(self, accounts: Collection[str], orders: Sequence[_Order]) -> None:
        asked_at = self._monotonic()
        if asked_at < self._failed_at + _REST_SECONDS:
            return
        exchange = self._permits.prepare(accounts, [order.costs for order in orders], asked_at)
        if not exchange.subjects():
            return
        answer = await self._ask(exchange)
        if answer is None:
            self._failed_at = self._monotonic()
            self._permits.lose(exchange)
            DRAWS.labels("failed").inc()
            return
        self._permits.learn(exchange, answer, asked_at, self._monotonic())
        for order, refusal in zip(orders, answer.refusals, strict=True):
            DRAWS.labels("refused" if refusal else "granted").inc()
            if refusal:
                REFUSALS.labels(refusal.cost.subject.kind, refusal.cost.subject.measure).inc()
            if not order.done.done():
                order.done.set_result(None)

    async def _ask(self, exchange: Exchange) -> Answer | None:
        call = asyncio.ensure_future(self._store.exchange(self._holder, exchange))
        call.add_done_callback(_look_at)
        try:
            await asyncio.wait((call,), timeout=self._patience)
            return call.result() if call.done() else None
        except LimitsUnavailable as error:
            log.warning("the database grants no permits: %r", error.__cause__)
            return None
        finally:
            call.cancel()  # which may take its time where the database hangs; nobody waits for that

    async def _close(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=self._patience)
        await end(*self._tasks)
        self._permits.surrender()
        if accounts := self._permits.due():
            await self._exchange(accounts, ())


def _look_at(call: "asyncio.Future[Answer]") -> None:
    """Take note of an error that nobody waits for any more."""
    if not call.cancelled():
        call.exception()
