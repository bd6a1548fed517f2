"""Bodies of the admin API."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict


class _Body(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class ServiceBody(_Body):
    """How a service is."""

    service: str
    status: str
    detail: str
    since: datetime | None
    checked_at: datetime | None


class DeploymentBody(_Body):
    """How a deployment is."""

    id: str
    model: str
    service: str
    health: str
    reason: str
    since: datetime | None


class AccountBody(_Body):
    """What an account has left, in nano-credits."""

    id: str
    name: str
    balance: int
    available: int
    leased: int
    alert: str


class TotalsBody(_Body):
    """What was used in some time."""

    requests: int
    tokens: int
    nano_credits: int


class OverviewBody(_Body):
    """Answer of `GET /admin/api/overview`."""

    services: list[ServiceBody]
    deployments: list[DeploymentBody]
    last_hour: TotalsBody
    last_day: TotalsBody
    accounts: int
    low_accounts: list[AccountBody]
    seen_at: datetime
