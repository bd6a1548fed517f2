"""gRPC servicer of the admin service."""

from datetime import datetime

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from dozen.admin.v1 import admin_service_pb2
from dozen.admin.v1.admin_service_pb2 import OverviewRequest, OverviewResponse
from dozen.admin.v1.admin_service_pb2_grpc import AdminServiceServicer
from dozen_admin.domain.accounts import Account
from dozen_admin.domain.usage import Totals
from dozen_admin.service.views import ViewsService

_MOST_ACCOUNTS = 100


class AdminServicer(AdminServiceServicer):
    """Serves `dozen.admin.v1.AdminService`."""

    def __init__(self, views: ViewsService) -> None:
        self._views = views

    async def Overview(self, request: OverviewRequest, context: grpc.aio.ServicerContext) -> OverviewResponse:
        """Give the platform at a glance."""
        overview = await self._views.overview()
        return OverviewResponse(
            services=[
                admin_service_pb2.ServiceHealth(
                    service=one.service,
                    status=one.status,
                    detail=one.detail,
                    checked_at=_timestamp(one.checked_at),
                    since=_timestamp(one.since),
                )
                for one in overview.services
            ],
            accounts=[
                _account(account) for account in await self._views.accounts(after=None, limit=_MOST_ACCOUNTS)
            ],
            low_accounts=[_account(account) for account in overview.low_accounts],
            deployments=[
                admin_service_pb2.DeploymentHealth(
                    deployment_id=one.id,
                    model_id=one.model,
                    service=one.service,
                    health=one.health,
                    reason=one.reason,
                    since=_timestamp(one.since),
                )
                for one in overview.deployments
            ],
            last_hour=_totals(overview.last_hour),
            last_day=_totals(overview.last_day),
            account_count=overview.accounts,
        )


def _account(account: Account) -> admin_service_pb2.AccountSummary:
    return admin_service_pb2.AccountSummary(
        account_id=account.id,
        name=account.name,
        available_nano_credits=account.available,
        leased_nano_credits=account.leased,
        charged_nano_credits=account.charged,
        requests=account.requests,
        alert=account.alert,
    )


def _totals(totals: Totals) -> admin_service_pb2.UsageTotals:
    return admin_service_pb2.UsageTotals(
        requests=totals.requests, tokens=totals.tokens, nano_credits=totals.nano_credits
    )


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp
