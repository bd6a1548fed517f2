"""Leases: acquired where they are needed, topped up before they are, and given back."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Protocol, Self
from uuid import uuid4

from prometheus_client import Counter, Gauge

from dozen_gateway.domain.leases import Lease, LeaseAnswer, LeaseWish, Purse
from dozen_gateway.domain.state import Account, State
from dozen_gateway.errors.decisions import CreditsUnavailable

log = logging.getLogger(__name__)

CALLS = Counter("dozen_gateway_lease_calls", "Calls to credits for leases.", ["call", "outcome"])
LEASES = Gauge("dozen_gateway_leases", "Leases that this replica has.")

ADVANCE = 16
"""A lease is acquired for so many requests like the first one; for more, the sooner it was used up."""
LARGEST_WISH = 10**15

REFUSAL_SECONDS = 1.0
IDLE_SECONDS = 10.0
_SOON_SECONDS = 1.0
_LATE_SECONDS = 10.0
_RENEWAL = 2 / 3
"""A lease is renewed when no more than this part of its life is left."""
_FORGOTTEN_SECONDS = 600.0


class Credits(Protocol):
    """The service that keeps the balances; both calls raise `CreditsUnavailable` where it does not answer."""

    async def acquire(self, wish: LeaseWish) -> LeaseAnswer:
        """Open, extend or renew a lease."""
        ...

    async def release(self, lease_id: str, held: int) -> tuple[int, bool]:
        """Return what is neither spent nor held.

        Give what was moved into the lease less what went back, and whether it is closed.
        """
        ...


class LeaseService:
    """Keeps the leases of this replica.

    A lease is changed by one call at a time. Once a call was to return some of it, nothing more is promised
    from it, and another is opened: heard late, or once more, the call would take what was promised since.
    What is left of it is returned as its requests are settled.
    """

    def __init__(
        self, state: State, credits: Credits, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._state = state
        self._credits = credits
        self._monotonic = monotonic
        self._holder = f"gateway-{uuid4().hex}"  # of this process; what an earlier one promised is not known
        self._turns: dict[Purse, asyncio.Lock] = {}
        self._topping_up: dict[Purse, asyncio.Task[None]] = {}
        self._is_away = False
        """Whether credits did not answer the last call."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Return all that is not held, for the end of this process."""
        for task in list(self._topping_up.values()):
            task.cancel()
        with suppress(CreditsUnavailable):
            for purse in list(self._state.purses.values()):
                async with self.turn(purse.account, purse.key):
                    await self._give_back(purse)

    @asynccontextmanager
    async def turn(self, account: str, key: str) -> AsyncIterator[Purse]:
        """Give a purse whose lease nobody else changes meanwhile; who asks first has it first."""
        purse = self._state.purse(account, key)
        async with self._turns.setdefault(purse, asyncio.Lock()):
            yield purse

    async def supply(self, purse: Purse, amount: int) -> None:
        """Make so much free at a purse that is the caller's turn, where credits have it.

        What is free here and does not suffice is returned first where the balance alone does not suffice
        either: of two replicas that have half of a request's worth each, the last one to ask gets both.
        """
        purse.used_at = self._monotonic()
        missing = amount - purse.free(purse.used_at)
        answer = await self._acquire(purse, missing, self._wish(purse, amount))
        if not answer.added and (purse.free(self._monotonic()) > 0 or purse.returnable()):
            await self._give_back(purse)
            missing = amount - purse.free(self._monotonic())
            answer = await self._acquire(purse, missing, self._wish(purse, amount))
        if not answer.added:
            purse.refused_until = self._monotonic() + REFUSAL_SECONDS

    def top_up(self, purse: Purse) -> None:
        """See to it, in the background, that there is enough at hand for what follows."""
        now = self._monotonic()
        if now < purse.refused_until or purse in self._topping_up or purse.free(now) * 2 >= purse.wanted:
            return
        task = asyncio.create_task(self._top_up(purse), name="top up")
        self._topping_up[purse] = task
        task.add_done_callback(lambda _: self._topping_up.pop(purse, None))

    async def sweep(self) -> None:
        """Renew leases in use, return those that are idle, and forget purses long unused."""
        for purse in list(self._state.purses.values()):
            try:
                await self._sweep(purse)
            except CreditsUnavailable:
                log.warning("leases are not renewed: credits do not answer")
                break
        purses = self._state.purses.values()
        LEASES.set(sum((purse.lease is not None) + len(purse.returned) for purse in purses))

    async def _sweep(self, purse: Purse) -> None:
        now = self._monotonic()
        if purse.returnable() or any(self._is_due(returned, now) for returned in purse.returned):
            async with self.turn(purse.account, purse.key):
                await self._keep_returned(purse)
        lease, now = purse.lease, self._monotonic()
        idle = now - purse.used_at
        if lease is None:
            if idle > _FORGOTTEN_SECONDS and not purse.returned and not self._is_busy(purse):
                self._forget(purse)
        elif lease.held == 0 and idle > IDLE_SECONDS and not self._is_away:
            async with self.turn(purse.account, purse.key):
                if purse.lease is lease and lease.held == 0:
                    await self._give_back(purse)
        elif self._is_away or self._is_due(lease, now):
            async with self.turn(purse.account, purse.key):
                await self._acquire(purse, 0, 0)

    async def _top_up(self, purse: Purse) -> None:
        try:
            async with self.turn(purse.account, purse.key):
                now = self._monotonic()
                missing = purse.wanted - purse.free(now)
                # Near the end of a balance requests ask for what they need; fractions would be of no use.
                if missing > 0 and now >= purse.refused_until:
                    answer = await self._acquire(purse, 1, missing)
                    if answer.added * 2 < missing:
                        purse.wanted = 0
        except CreditsUnavailable:
            purse.refused_until = self._monotonic() + REFUSAL_SECONDS
            log.warning("a lease could not be topped up", extra={"account": purse.account})

    def _wish(self, purse: Purse, amount: int) -> int:
        """Want twice as much where the last lease lasted less than a second, half where it lasted long."""
        now = self._monotonic()
        age, purse.acquired_at = now - purse.acquired_at, now
        if age < _SOON_SECONDS:
            purse.wanted *= 2
        elif age > _LATE_SECONDS:
            purse.wanted //= 2
        purse.wanted = min(max(purse.wanted, ADVANCE * amount), LARGEST_WISH)
        return purse.wanted

    async def _acquire(self, purse: Purse, needed: int, wanted: int) -> LeaseAnswer:
        began = self._monotonic()
        # No two leases of this process share a name, so none is taken for another, with other promises.
        holder = purse.lease.holder if purse.lease else f"{self._holder}.{purse.key}.{purse.generation}"
        answer = await self._ask(purse, holder, needed, wanted)
        if purse.lease is not None and purse.lease.id != answer.lease_id:
            self._set_aside(purse)
        if answer.lease_id:
            if purse.lease is None:
                purse.lease = Lease(answer.lease_id, holder)
            self._renewed(purse.lease, answer, began)
        return answer

    async def _ask(self, purse: Purse, holder: str, needed: int, wanted: int) -> LeaseAnswer:
        key = self._state.keys.get(purse.key)
        wish = LeaseWish(
            account=purse.account,
            key=purse.key,
            budget=key.budget if key else None,
            holder=holder,
            needed=needed,
            wanted=max(needed, wanted),
            token=uuid4().hex if needed else "",
        )
        try:
            answer = await self._credits.acquire(wish)
        except CreditsUnavailable:
            CALLS.labels("acquire", "unavailable").inc()
            self._is_away = True
            raise
        self._is_away = False
        CALLS.labels("acquire", "added" if answer.added else "refused" if needed else "renewed").inc()
        self._state.learn_balances({purse.account: Account(answer.available, answer.version)})
        purse.rest = answer.rest
        return answer

    def _renewed(self, lease: Lease, answer: LeaseAnswer, began: float) -> None:
        lease.lifetime = answer.lifetime
        lease.granted = answer.granted
        lease.valid_until = began + answer.lifetime

    async def _give_back(self, purse: Purse) -> None:
        """Return what is not held; from then on the lease only serves the requests that it is held for."""
        self._set_aside(purse)
        await self._return(purse)

    def _set_aside(self, purse: Purse) -> None:
        if purse.lease is not None:
            purse.returned.append(purse.lease)
            purse.lease = None
            purse.generation += 1

    async def _return(self, purse: Purse) -> None:
        for lease in purse.returnable():
            try:
                lease.granted, closed = await self._credits.release(lease.id, lease.held)
            except CreditsUnavailable:
                CALLS.labels("release", "unavailable").inc()
                self._is_away = True
                raise
            CALLS.labels("release", "closed" if closed else "returned").inc()
            if closed:
                purse.returned.remove(lease)

    async def _keep_returned(self, purse: Purse) -> None:
        """Return more of leases that were returned before, and renew them for the requests that still run."""
        await self._return(purse)
        for lease in list(purse.returned):
            began = self._monotonic()
            if self._is_due(lease, began):
                answer = await self._ask(purse, lease.holder, 0, 0)
                if answer.lease_id == lease.id:
                    self._renewed(lease, answer, began)
                else:
                    purse.returned.remove(lease)

    @staticmethod
    def _is_due(lease: Lease, now: float) -> bool:
        return lease.valid_until - now < lease.lifetime * _RENEWAL

    def _is_busy(self, purse: Purse) -> bool:
        turn = self._turns.get(purse)
        return turn is not None and turn.locked()

    def _forget(self, purse: Purse) -> None:
        self._turns.pop(purse, None)
        self._state.purses.pop((purse.account, purse.key), None)
