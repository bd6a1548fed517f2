"""The process of credits: its own code on books in memory; it crashes, and the books stay."""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from google.protobuf.message import Message

from dozen.credits.v1.credits_events_pb2 import CreditsGranted
from dozen_credits.domain.accounts import Balance
from dozen_credits.domain.leases import Lease
from dozen_credits.domain.ledger import Book, Kind, Transfer
from dozen_credits.domain.metering import Price, Usage
from dozen_credits.service.leases import Leases
from dozen_credits.service.ledger import balance_message
from dozen_credits.service.metering import Metering
from simulation.books import Books, Commit, Tables
from simulation.plan import PRICE, Plan
from simulation.world import World

PRICE_ID = "price"
_MONTH_END = datetime(2026, 12, 1, tzinfo=UTC)

Result = TypeVar("Result")


class Bank:
    """Credits, as one process that may be away."""

    def __init__(
        self,
        world: World,
        plan: Plan,
        publish: Callable[[Message], None],
        books: type[Books],
        grace: float,
    ) -> None:
        self._world = world
        self._plan = plan
        self._publish = publish
        began = _MONTH_END - timedelta(seconds=plan.month_ends_after)
        self.tables = Tables(
            now=lambda: began + timedelta(seconds=world.time),
            pause=lambda: world.pause(0.1, 0.1),
            prices={PRICE_ID: Price(PRICE_ID, "smol", PRICE, began)},
        )
        self._books = books(self.tables)
        self.leases = Leases(
            self._books,
            lifetime=timedelta(seconds=plan.lease_seconds),
            longest_request=timedelta(seconds=plan.longest_request * grace),
        )
        self.metering = Metering(self._books, price_attempts=1, low_balance=0)
        self.granted: dict[str, int] = {}
        self._outbox: deque[Message] = deque()
        self._tasks: dict[asyncio.Task[Any], None] = {}  # in the order of their start
        self.is_up = True
        self._life = 0
        self._sweep_later()

    @property
    def is_busy(self) -> bool:
        """Whether a transaction has not ended."""
        return any(lock.locked() for lock in self.tables.locks.values())

    def serve(self, work: Coroutine[Any, Any, Result]) -> "asyncio.Task[Result]":
        """Do work of this process; a crash cancels it."""
        task = self._world.start(work)
        self._tasks[task] = None
        task.add_done_callback(self._tasks.pop)
        return task

    def crash(self, seconds: float) -> None:
        """Forget all that is not in the books, and be away for some time."""
        if not self.is_up:
            return
        self._world.note(f"credits crash, for {seconds:.2f} s, under {len(self._tasks)} calls")
        self.is_up = False
        for task in list(self._tasks):
            task.cancel()
        self._world.later(seconds, self._restart)

    def open(self, account_id: str, nano_credits: int) -> None:
        """Open an account, before anything else happens."""
        self.tables.balances[account_id] = Balance(account_id, nano_credits, 0, 2)
        if nano_credits:
            self.tables.transfers.append(_grant(account_id, nano_credits))
        self.granted[account_id] = nano_credits

    async def grant(self, account_id: str, nano_credits: int) -> None:
        """Give an account more."""
        async with self._books.transaction() as tx:
            await tx.lock([account_id])
            balances = await tx.post([_grant(account_id, nano_credits)])
            balance = balance_message(balances[account_id])
            await tx.emit(CreditsGranted(balance=balance, nano_credits=nano_credits))
        self.granted[account_id] += nano_credits
        self._world.note(f"{account_id} is granted {nano_credits}")

    def take_out(self, commit: Commit) -> None:
        """Take the events of a transaction, which are published some time after it."""
        self._outbox += commit.events
        if commit.events and self.is_up:
            self._world.later(self._world.random.random() * 0.1, self._relay)

    def _relay(self) -> None:
        while self._outbox and self.is_up:
            event = self._outbox.popleft()
            self._publish(event)
            if self._world.happens(0.02):  # published, and not yet noted as that
                self._outbox.append(event)
                self.crash(self._world.random.random() * 2)

    def _restart(self) -> None:
        self._world.note("credits are back")
        self.is_up = True
        self._life += 1
        self._relay()
        self._sweep_later()

    def _sweep_later(self) -> None:
        seconds = self._plan.sweep_seconds * (0.5 + self._world.random.random())
        self._world.later(seconds, self._sweep, self._life)

    def _sweep(self, life: int) -> None:
        if self.is_up and life == self._life:
            self.serve(self.leases.close_overdue()).add_done_callback(partial(self._swept, life))

    def _swept(self, life: int, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()):
            self._world.expect(False, f"leases could not be swept: {error!r}")
        if self.is_up and life == self._life:
            self._sweep_later()


def usage(
    request_id: str,
    account_id: str,
    key_id: str,
    lease_id: str,
    quantities: Mapping[str, int],
    finished_at: datetime,
) -> Usage:
    """Give what is reported of a request."""
    return Usage(
        request_id=request_id,
        account_id=account_id,
        key_id=key_id,
        model="smol",
        deployment_id="smol-1",
        operation="POST /v1/completions",
        price_id=PRICE_ID,
        quantities=quantities,
        finished_at=finished_at,
        estimated=False,
        lease_id=lease_id,
    )


def open_leases(tables: Tables) -> list[Lease]:
    """Give the leases that are open."""
    return [tables.leases[lease_id] for lease_id in tables.open.values()]


def _grant(account_id: str, nano_credits: int) -> Transfer:
    return Transfer(account_id, Kind.GRANT, Book.ISSUED, Book.AVAILABLE, nano_credits, "grant")
