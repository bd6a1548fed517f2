"""Bodies of usage."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel

from dozen_credits.domain.accounts import credits_text
from dozen_credits.domain.metering import Charge
from dozen_credits.domain.usage import UsageSum
from dozen_credits.schemas.lists import ends


class UsageRow(BaseModel):
    """Usage in one bucket of time, of one group where usage is grouped."""

    object: Literal["usage"] = "usage"
    id: str
    """The bucket's start, and the row's place in the bucket."""
    start_time: int
    end_time: int
    model: str | None
    key_id: str | None
    operation: str | None
    requests: int
    quantities: dict[str, int]
    nano_credits: int
    cost: str


class RatedRequest(BaseModel):
    """One request with what it was charged."""

    object: Literal["usage.request"] = "usage.request"
    id: str
    request_id: str
    model: str
    operation: str
    key_id: str
    quantities: dict[str, int]
    nano_credits: int
    cost: str
    finished_at: int
    estimated: bool


class UsageList(BaseModel):
    """Answer of `GET /v1/usage`."""

    object: Literal["list"] = "list"
    data: list[UsageRow]
    first_id: str | None
    last_id: str | None
    has_more: bool


class RatedRequestList(BaseModel):
    """Answer of `GET /v1/usage/requests`."""

    object: Literal["list"] = "list"
    data: list[RatedRequest]
    first_id: str | None
    last_id: str | None
    has_more: bool


def usage_list(sums: Sequence[UsageSum], has_more: bool) -> UsageList:
    """Show a page of sums."""
    data = [
        UsageRow(
            id=f"{one.place.start.timestamp():.0f}-{one.place.number}",
            start_time=int(one.place.start.timestamp()),
            end_time=int(one.end.timestamp()),
            model=one.model,
            key_id=one.key_id,
            operation=one.operation,
            requests=one.requests,
            quantities=dict(one.quantities),
            nano_credits=one.nano_credits,
            cost=credits_text(one.nano_credits),
        )
        for one in sums
    ]
    return UsageList(data=data, has_more=has_more, **ends([row.id for row in data]))


def rated_request_list(charges: Sequence[Charge], has_more: bool) -> RatedRequestList:
    """Show a page of requests."""
    data = [
        RatedRequest(
            id=charge.usage.request_id,
            request_id=charge.usage.request_id,
            model=charge.usage.model,
            operation=charge.usage.operation,
            key_id=charge.usage.key_id,
            quantities=dict(charge.usage.quantities),
            nano_credits=charge.nano_credits,
            cost=credits_text(charge.nano_credits),
            finished_at=int(charge.usage.finished_at.timestamp()),
            estimated=charge.usage.estimated,
        )
        for charge in charges
    ]
    return RatedRequestList(data=data, has_more=has_more, **ends([row.id for row in data]))
