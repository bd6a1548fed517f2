"""What an account has used, summed and request by request."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Generic, NamedTuple, Protocol, TypeVar

from dozen_credits.domain.metering import Charge
from dozen_credits.domain.usage import Buckets, Place, UsageQuery, UsageSum
from dozen_credits.errors.usage import InvalidPeriod, UnknownCursor

_DEFAULT_PERIOD = timedelta(days=30)
_END_OF_TIME = datetime.max.replace(tzinfo=UTC)
WIDTHS = {"1h": timedelta(hours=1), "1d": timedelta(days=1), "all": None}

Row = TypeVar("Row")


class Page(NamedTuple, Generic[Row]):
    """Part of a list."""

    rows: list[Row]
    has_more: bool


class UsageStore(Protocol):
    """Usage that was charged, and its sums."""

    async def sums(
        self, account_id: str, buckets: Buckets, query: UsageQuery, after: Place, limit: int
    ) -> list[UsageSum]:
        """Give the first sums that follow a place, in the order of time."""
        ...

    async def find_time(self, account_id: str, request_id: str) -> datetime | None:
        """Give the time at which a charged request finished."""
        ...

    async def requests(self, account_id: str, before: tuple[datetime, str], limit: int) -> list[Charge]:
        """Give the newest charged requests before a time and, of that time, an id."""
        ...


class UsageReports:
    """Reads usage."""

    def __init__(self, store: UsageStore) -> None:
        self._store = store

    async def sums(
        self,
        account_id: str,
        query: UsageQuery,
        *,
        start: datetime | None,
        end: datetime | None,
        width: str,
        after: Place | None,
        limit: int,
    ) -> Page[UsageSum]:
        """Give usage by buckets of a period, the last 30 days unless given, that follows a place."""
        end = end or datetime.now(UTC)
        start = start or end - _DEFAULT_PERIOD
        if start >= end:
            raise InvalidPeriod(param="end_time")
        buckets = Buckets.covering(start, end, WIDTHS[width])
        after = after or Place(buckets.start, 0)
        rows = await self._store.sums(account_id, buckets.starting(after.start), query, after, limit + 1)
        return Page(rows[:limit], len(rows) > limit)

    async def requests(self, account_id: str, *, after: str | None, limit: int) -> Page[Charge]:
        """Give charged requests, the newest first, that follow the request `after`."""
        before = (_END_OF_TIME, "")
        if after is not None:
            time = await self._store.find_time(account_id, after)
            if time is None:
                raise UnknownCursor(param="after")
            before = (time, after)
        rows: Sequence[Charge] = await self._store.requests(account_id, before, limit + 1)
        return Page(list(rows[:limit]), len(rows) > limit)
