"""Routes of usage."""

from datetime import UTC, datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from dozen_chassis.http import Admitted
from dozen_credits.domain.usage import Place, UsageQuery
from dozen_credits.schemas.usage import RatedRequestList, UsageList, rated_request_list, usage_list
from dozen_credits.service.usage import UsageReports

_Time = Annotated[int | None, Query(ge=0, le=4_102_444_800)]  # Unix seconds, until the year 2100
_Limit = Annotated[int, Query(ge=1, le=100)]
_Names = Annotated[
    list[Annotated[str, Query(min_length=1, max_length=256, pattern=r"^[^\x00]*$")]] | None,
    Query(max_length=100),
]


def router(reports: UsageReports) -> APIRouter:
    """Serve `/v1/usage`."""
    routes = APIRouter()

    @routes.get("/v1/usage")
    async def list_usage(
        admission: Admitted,
        start_time: _Time = None,
        end_time: _Time = None,
        bucket_width: Literal["1h", "1d", "all"] = "1d",
        group_by: Annotated[list[Literal["model", "key", "operation"]], Query(max_length=10)] = [],  # noqa: B006  # FastAPI copies it
        models: _Names = None,
        key_ids: _Names = None,
        limit: _Limit = 31,
        after: Annotated[str | None, Query(pattern=r"^\d{1,10}-\d{1,10}$")] = None,
    ) -> UsageList:
        page = await reports.sums(
            admission.account,
            UsageQuery(
                models=None if models is None else frozenset(models),
                key_ids=None if key_ids is None else frozenset(key_ids),
                groups=frozenset(group_by),
            ),
            start=_moment(start_time),
            end=_moment(end_time),
            width=bucket_width,
            after=None if after is None else _place(after),
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


def _place(text: str) -> Place:
    start, _, number = text.partition("-")
    return Place(datetime.fromtimestamp(int(start), UTC), int(number))


def _moment(seconds: int | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
