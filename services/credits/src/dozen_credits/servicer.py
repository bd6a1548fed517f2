"""gRPC servicer of the credits service."""

from datetime import UTC

import grpc.aio

from dozen.credits.v1.credits_service_pb2 import (
    AcquireLeaseRequest,
    AcquireLeaseResponse,
    AdjustRequest,
    AdjustResponse,
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
from dozen_credits.domain.leases import LeaseWish
from dozen_credits.domain.ledger import Kind
from dozen_credits.domain.postings import PRIORITY, Posting
from dozen_credits.service.accounts import Accounts, account_message
from dozen_credits.service.leases import Leases, lease_message
from dozen_credits.service.ledger import balance_message
from dozen_credits.service.postings import Postings


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
        )
        acquired = await self._leases.acquire(wish)
        return AcquireLeaseResponse(
            lease=lease_message(acquired.lease) if acquired.lease else None,
            added_nano_credits=acquired.added,
            balance=balance_message(acquired.balance),
        )

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
