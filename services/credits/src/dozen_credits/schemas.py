"""Bodies of the credits API."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import BaseModel

from dozen_credits.domain.accounts import Account, credits_text
from dozen_credits.domain.metering import NANO_CREDITS, REQUESTS, Charge
from dozen_credits.domain.usage import UsageSum


class Credits(BaseModel):
    """Answer of `GET /v1/credits`."""

    object: Literal["credits"] = "credits"
    account_id: str
    available_nano_credits: int
    """What is not spent yet, in leases of the gateway or not."""
    available: str
    """In credits, exactly."""
    updated_at: int

    @classmethod
    def of(cls, account: Account) -> Self:
        """Show the balance of an account."""
        available = account.balance.total
        return cls(
            account_id=account.id,
            available_nano_credits=available,
            available=credits_text(available),
            updated_at=int(account.updated_at.timestamp()),
        )


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
    rows: list[UsageRow] = []
    for one in sums:
        start = int(one.start.timestamp())
        place = int(rows[-1].id.partition("-")[2]) + 1 if rows and rows[-1].start_time == start else 0
        quantities = dict(one.measures)
        requests, nano_credits = quantities.pop(REQUESTS), quantities.pop(NANO_CREDITS)
        rows.append(
            UsageRow(
                id=f"{start}-{place}",
                start_time=start,
                end_time=int(one.end.timestamp()),
                model=one.model,
                key_id=one.key_id,
                operation=one.operation,
                requests=requests,
                quantities=quantities,
                nano_credits=nano_credits,
                cost=credits_text(nano_credits),
            )
        )
    return UsageList(data=rows, has_more=has_more, **_ends([row.id for row in rows]))


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
    return RatedRequestList(data=data, has_more=has_more, **_ends([row.id for row in data]))


def _ends(ids: Sequence[str]) -> dict[str, str | None]:
    return {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
