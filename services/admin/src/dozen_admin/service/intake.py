"""What the events of other services bring into the read model."""

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Protocol, Self

from dozen_admin.domain.accounts import Account, Balance
from dozen_admin.domain.catalogue import Health, Model, Price
from dozen_admin.domain.keys import ApiKey
from dozen_admin.domain.tasks import Task
from dozen_admin.domain.usage import Charge

_FORGET_BATCH = 5000


class Intake(Protocol):
    """Where the read model is written; everything may be written again and changes nothing then."""

    def transaction(self) -> AbstractAsyncContextManager[Self]:
        """Give the same in one transaction."""
        ...

    async def first_delivery(self, event_id: str) -> bool:
        """Record that an event is being handled; False where it already was."""
        ...

    async def put_account(self, account: Account) -> None:
        """Keep an account's name and age."""
        ...

    async def put_balances(self, balances: Sequence[Balance]) -> None:
        """Keep balances that are newer than those known."""
        ...

    async def put_low_limit(self, account: str, limit: int | None) -> None:
        """Keep below which balance an account is low; None tells that it was low, and no limit."""
        ...

    async def put_key(self, key: ApiKey, told_at: datetime) -> None:
        """Keep a key, unless it was told of later; one that was revoked stays so."""
        ...

    async def add_charges(self, charges: Sequence[Charge]) -> None:
        """Add those charges whose requests were not charged yet, to the totals as well."""
        ...

    async def put_model(self, model: Model, announced_at: datetime) -> bool:
        """Keep a model without its deployments; False where a later announcement is known."""
        ...

    async def put_deployments(self, model: Model) -> None:
        """Keep a model's deployments, and drop those that it no longer has."""
        ...

    async def put_health(self, health: Health) -> None:
        """Keep a deployment's health, unless a later one is known."""
        ...

    async def put_price(self, price: Price) -> None:
        """Keep a price."""
        ...

    async def add_task(self, task: Task) -> None:
        """Keep a finished task."""
        ...

    async def forget_charges(self, before: datetime, limit: int) -> int:
        """Drop charges of requests that finished before a moment; return how many."""
        ...

    async def forget_tasks(self, before: datetime, limit: int) -> int:
        """Drop tasks that finished before a moment; return how many."""
        ...


class IntakeService:
    """Keeps the read model as the events tell."""

    def __init__(self, intake: Intake, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._intake = intake
        self._clock = clock

    async def account_opened(self, account: Account, balance: Balance) -> None:
        """Take an account."""
        async with self._intake.transaction() as tx:
            await tx.put_account(account)
            await tx.put_balances([balance])

    async def balance_changed(self, balance: Balance) -> None:
        """Take a balance."""
        await self._intake.put_balances([balance])

    async def balance_low(self, balance: Balance, limit: int) -> None:
        """Take a balance that fell below a limit; its account is low until it has as much again."""
        async with self._intake.transaction() as tx:
            await tx.put_balances([balance])
            await tx.put_low_limit(balance.account, limit)

    async def balance_exhausted(self, balance: Balance) -> None:
        """Take a balance of which nothing is left."""
        async with self._intake.transaction() as tx:
            await tx.put_balances([balance])
            await tx.put_low_limit(balance.account, None)

    async def usage_rated(
        self, delivery: str, charges: Sequence[Charge], balances: Sequence[Balance]
    ) -> None:
        """Take charges and the balances after them."""
        async with self._intake.transaction() as tx:
            if await tx.first_delivery(delivery):
                await tx.add_charges(charges)
                await tx.put_balances(balances)

    async def key_changed(self, key: ApiKey, told_at: datetime) -> None:
        """Take a key that was made, changed or revoked, whole."""
        await self._intake.put_key(key, told_at)

    async def model_registered(self, model: Model, announced_at: datetime) -> None:
        """Take a model, whole."""
        async with self._intake.transaction() as tx:
            if await tx.put_model(model, announced_at):
                await tx.put_deployments(model)

    async def health_changed(self, health: Health) -> None:
        """Take a deployment's health."""
        await self._intake.put_health(health)

    async def price_changed(self, price: Price) -> None:
        """Take a price."""
        await self._intake.put_price(price)

    async def task_finished(self, task: Task) -> None:
        """Take a task."""
        await self._intake.add_task(task)

    async def forget(self, *, keep_recent: timedelta) -> None:
        """Drop what is older than that; the totals stay."""
        before = self._clock() - keep_recent
        while await self._intake.forget_charges(before, _FORGET_BATCH):
            pass
        while await self._intake.forget_tasks(before, _FORGET_BATCH):
            pass
