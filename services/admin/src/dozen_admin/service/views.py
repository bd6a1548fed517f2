"""What the pages show of the read model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from dozen_admin.domain.accounts import Account
from dozen_admin.domain.catalogue import Deployment, Model
from dozen_admin.domain.keys import ApiKey
from dozen_admin.domain.tasks import Task
from dozen_admin.domain.usage import Charge, ModelUsage, Totals
from dozen_admin.domain.watch import ServiceHealth
from dozen_admin.errors import AccountNotFound

USAGE_DAYS = 30
"""How far back the usage of an account by model goes."""
_SHOWN_WITH_ACCOUNT = 20
_MOST_LOW_ACCOUNTS = 20


class Views(Protocol):
    """Where the read model is read."""

    async def accounts(self, *, after: str | None, limit: int) -> list[Account]:
        """Give accounts by their ids, after one."""
        ...

    async def account(self, account: str) -> Account | None:
        """Give one account."""
        ...

    async def low_accounts(self, limit: int) -> list[Account]:
        """Give the accounts that are low or exhausted, those with the least first."""
        ...

    async def account_count(self) -> int:
        """Count the accounts."""
        ...

    async def keys(self, account: str, limit: int) -> list[ApiKey]:
        """Give an account's keys, the newest first."""
        ...

    async def usage_by_model(self, account: str, since: datetime) -> list[ModelUsage]:
        """Give what an account used of each model since the hour of a moment, the dearest first."""
        ...

    async def charges(self, *, account: str | None, after: str | None, limit: int) -> list[Charge]:
        """Give the newest charges, of one account or all, after that of a request."""
        ...

    async def totals(self, since: datetime) -> Totals:
        """Sum up the charges of requests that finished since a moment."""
        ...

    async def models(self, now: datetime) -> list[Model]:
        """Give the catalogue with the deployments and the prices in force."""
        ...

    async def deployments(self) -> list[Deployment]:
        """Give all deployments with their health."""
        ...

    async def tasks(self, *, after: str | None, limit: int) -> list[Task]:
        """Give the tasks that finished last, after one."""
        ...


class Watch(Protocol):
    """Knows how the services are."""

    async def services(self) -> Sequence[ServiceHealth]:
        """Give the health of each service."""
        ...


@dataclass(frozen=True, slots=True)
class Overview:
    """The platform at a glance."""

    services: Sequence[ServiceHealth]
    deployments: Sequence[Deployment]
    last_hour: Totals
    last_day: Totals
    accounts: int
    low_accounts: Sequence[Account]
    """The first of those that are low or exhausted, those with the least first."""
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class AccountDetail:
    """All that is shown of an account."""

    account: Account
    keys: Sequence[ApiKey]
    usage: Sequence[ModelUsage]
    charges: Sequence[Charge]
    seen_at: datetime


class ViewsService:
    """Reads what is shown."""

    def __init__(
        self, views: Views, watch: Watch, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._views = views
        self._watch = watch
        self._clock = clock

    async def overview(self) -> Overview:
        """Give the platform at a glance."""
        now = self._clock()
        return Overview(
            services=await self._watch.services(),
            deployments=await self._views.deployments(),
            last_hour=await self._views.totals(now - timedelta(hours=1)),
            last_day=await self._views.totals(now - timedelta(hours=24)),
            accounts=await self._views.account_count(),
            low_accounts=await self._views.low_accounts(_MOST_LOW_ACCOUNTS),
            seen_at=now,
        )

    async def accounts(self, *, after: str | None, limit: int) -> Sequence[Account]:
        """Give accounts by their ids, after one."""
        return await self._views.accounts(after=after, limit=limit)

    async def account(self, account: str) -> AccountDetail:
        """Give one account with its keys, usage and newest charges."""
        now = self._clock()
        found = await self._views.account(account)
        if found is None:
            raise AccountNotFound()
        return AccountDetail(
            account=found,
            keys=await self._views.keys(account, limit=100),
            usage=await self._views.usage_by_model(account, now - timedelta(days=USAGE_DAYS)),
            charges=await self._views.charges(account=account, after=None, limit=_SHOWN_WITH_ACCOUNT),
            seen_at=now,
        )

    async def charges(self, *, account: str | None, after: str | None, limit: int) -> Sequence[Charge]:
        """Give the newest charges, of one account or all, after that of a request."""
        return await self._views.charges(account=account, after=after, limit=limit)

    async def models(self) -> Sequence[Model]:
        """Give the catalogue with the deployments and the prices in force."""
        return await self._views.models(self._clock())

    async def tasks(self, *, after: str | None, limit: int) -> Sequence[Task]:
        """Give the tasks that finished last, after one."""
        return await self._views.tasks(after=after, limit=limit)
