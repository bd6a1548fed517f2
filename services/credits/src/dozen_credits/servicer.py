"""gRPC servicer of the credits service."""

from datetime import UTC

import grpc.aio

from dozen.credits.v1.credits_service_pb2 import (
    BUDGET_PERIOD_MONTH,
    BUDGET_PERIOD_TOTAL,
    AcquireLeaseRequest,
    AcquireLeaseResponse,
    AdjustRequest,
    AdjustResponse,
    BudgetPeriod,
    GetAccountRequest,
    GetAccountResponse,
    GrantRequest,
    GrantResponse,
    OpenAccountRequest,
    OpenAccountResponse,
    RefundRequest,
    RefundResponse,
    ReleaseLeaseRequest,
    ReleaseLeaseResponse,
)
from dozen.credits.v1.credits_service_pb2_grpc import CreditsServiceServicer
from dozen.credits.v1.reconciliation_pb2 import ReconciliationFinding
from dozen.credits.v1.reconciliation_service_pb2 import (
    GetReconciliationRequest,
    GetReconciliationResponse,
    ListReconciliationsRequest,
    ListReconciliationsResponse,
    ReconcileRequest,
    ReconcileResponse,
)
from dozen.credits.v1.reconciliation_service_pb2_grpc import ReconciliationServiceServicer
from dozen_credits.domain import reconciliation
from dozen_credits.domain.leases import Budget, LeaseWish, Period
from dozen_credits.domain.ledger import Kind
from dozen_credits.domain.postings import PRIORITY, Posting
from dozen_credits.errors.leases import InvalidLease
from dozen_credits.service.accounts import Accounts, account_message
from dozen_credits.service.leases import Leases, lease_message
from dozen_credits.service.ledger import balance_message
from dozen_credits.service.postings import Postings
from dozen_credits.service.reconciliation import Reconciliations, reconciliation_message

_PERIODS: dict[BudgetPeriod.ValueType, Period] = {
    BUDGET_PERIOD_MONTH: Period.MONTH,
    BUDGET_PERIOD_TOTAL: Period.TOTAL,
}


class CreditsServicer(CreditsServiceServicer):
    """Serves `dozen.credits.v1.CreditsService`."""

    def __init__(self, accounts: Accounts, leases: Leases, postings: Postings) -> None:
        self._accounts = accounts
        self._leases = leases
        self._postings = postings

    async def OpenAccount(
        self, request: OpenAccountRequest, context: grpc.aio.ServicerContext
    ) -> OpenAccountResponse:
        opened = await self._accounts.open(request.account_id, request.name)
        return OpenAccountResponse(account=account_message(opened))

    async def GetAccount(
        self, request: GetAccountRequest, context: grpc.aio.ServicerContext
    ) -> GetAccountResponse:
        return GetAccountResponse(account=account_message(await self._accounts.get(request.account_id)))

    async def Grant(self, request: GrantRequest, context: grpc.aio.ServicerContext) -> GrantResponse:
        grant = Posting(
            Kind.GRANT,
            request.idempotency_key,
            request.account_id,
            request.nano_credits,
            request.reason,
            expires_at=request.expires_at.ToDatetime(UTC) if request.HasField("expires_at") else None,
            priority=request.priority if request.HasField("priority") else PRIORITY,
        )
        await self._postings.grant(grant)
        return GrantResponse(account=account_message(await self._accounts.get(request.account_id)))

    async def AcquireLease(
        self, request: AcquireLeaseRequest, context: grpc.aio.ServicerContext
    ) -> AcquireLeaseResponse:
        wish = LeaseWish(
            request.account_id,
            request.holder,
            request.needed_nano_credits,
            request.wanted_nano_credits,
            request.request_token,
            _budget(request) if request.HasField("budget") else None,
        )
        acquired = await self._leases.acquire(wish)
        response = AcquireLeaseResponse(
            lease=lease_message(acquired.lease) if acquired.lease else None,
            added_nano_credits=acquired.added,
            balance=balance_message(acquired.balance),
            budget_left_nano_credits=acquired.budget_left,
        )
        response.lifetime.FromTimedelta(self._leases.lifetime)
        return response

    async def ReleaseLease(
        self, request: ReleaseLeaseRequest, context: grpc.aio.ServicerContext
    ) -> ReleaseLeaseResponse:
        lease = await self._leases.release(request.lease_id, request.held_nano_credits)
        return ReleaseLeaseResponse(lease=lease_message(lease))

    async def Adjust(self, request: AdjustRequest, context: grpc.aio.ServicerContext) -> AdjustResponse:
        adjustment = Posting(
            Kind.ADJUSTMENT,
            request.idempotency_key,
            request.account_id,
            request.nano_credits,
            request.reason,
            request.actor,
        )
        await self._postings.adjust(adjustment)
        return AdjustResponse(account=account_message(await self._accounts.get(request.account_id)))

    async def Refund(self, request: RefundRequest, context: grpc.aio.ServicerContext) -> RefundResponse:
        refund = await self._postings.refund(
            request.request_id,
            request.nano_credits,
            idempotency_key=request.idempotency_key,
            reason=request.reason,
            actor=request.actor,
        )
        account = await self._accounts.get(refund.account_id)
        return RefundResponse(account=account_message(account), nano_credits=refund.nano_credits)


class ReconciliationServicer(ReconciliationServiceServicer):
    """Serves `dozen.credits.v1.ReconciliationService`."""

    def __init__(self, reconciliations: Reconciliations) -> None:
        self._reconciliations = reconciliations

    async def Reconcile(
        self, request: ReconcileRequest, context: grpc.aio.ServicerContext
    ) -> ReconcileResponse:
        period = reconciliation.Period(request.start.ToDatetime(UTC), request.end.ToDatetime(UTC))
        started = await self._reconciliations.start(period)
        return ReconcileResponse(reconciliation=reconciliation_message(started))

    async def GetReconciliation(
        self, request: GetReconciliationRequest, context: grpc.aio.ServicerContext
    ) -> GetReconciliationResponse:
        found, findings = await self._reconciliations.get(request.reconciliation_id)
        return GetReconciliationResponse(
            reconciliation=reconciliation_message(found),
            findings=[
                ReconciliationFinding(
                    kind=one.kind, account_id=one.account_id, reference=one.reference, detail=one.detail
                )
                for one in findings
            ],
        )

    async def ListReconciliations(
        self, request: ListReconciliationsRequest, context: grpc.aio.ServicerContext
    ) -> ListReconciliationsResponse:
        page = await self._reconciliations.page(request.after, request.limit)
        return ListReconciliationsResponse(
            reconciliations=map(reconciliation_message, page.rows), has_more=page.has_more
        )


def _budget(request: AcquireLeaseRequest) -> Budget:
    budget = request.budget
    if (period := _PERIODS.get(budget.period)) is None:
        raise InvalidLease(param="budget.period")
    return Budget(budget.key_id, budget.nano_credits, period)
