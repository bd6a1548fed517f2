"""HTTP routes of the credits service."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from dozen_chassis.http import Admitted
from dozen_credits.schemas import Credits, RatedRequestList, UsageList, rated_request_list, usage_list
from dozen_credits.service.accounts import Accounts
from dozen_credits.service.usage import UsageReports

_Time = Annotated[int | None, Query(ge=0, le=4_102_444_800)]  # Unix seconds, until the year 2100
_Limit = Annotated[int, Query(ge=1, le=100)]


def router(accounts: Accounts, reports: UsageReports) -> APIRouter:
    """Serve `/v1/credits` and `/v1/usage`."""
    routes = APIRouter()

    @routes.get("/v1/credits")
    async def read_credits(admission: Admitted) -> Credits:
        return Credits.of(await accounts.get(admission.account))

    @routes.get("/v1/usage")
    async def list_usage(
        admission: Admitted,
        start_time: _Time = None,
        end_time: _Time = None,
        bucket_width: Literal["1h", "1d", "all"] = "1d",
        group_by: Annotated[list[Literal["model", "key", "operation"]], Query(max_length=10)] = [],  # noqa: B006  # FastAPI copies it
        limit: _Limit = 31,
        after: Annotated[str | None, Query(pattern=r"^\d{1,10}(-\d{1,10})?$")] = None,
    ) -> UsageList:
        page = await reports.sums(
            admission.account,
            start=_moment(start_time),
            end=_moment(end_time),
            width=bucket_width,
            groups=frozenset(group_by),
            after=None if after is None else _moment(int(after.partition("-")[0])),
            limit=limit,
        )
        return usage_list(page.rows, page.has_more)

    @routes.get("/v1/usage/requests")
    async def list_requests(
        admission: Admitted,
        limit: _Limit = 20,
        after: Annotated[str | None, Query(pattern=r"^[A-Za-z0-9_.:-]{1,128}$")] = None,
    ) -> RatedRequestList:
        page = await reports.requests(admission.account, after=after, limit=limit)
        return rated_request_list(page.rows, page.has_more)

    return routes


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
