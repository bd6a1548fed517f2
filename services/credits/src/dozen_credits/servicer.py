"""gRPC servicer of the credits service."""

import grpc.aio

from dozen.credits.v1.credits_service_pb2 import (
    GetAccountRequest,
    GetAccountResponse,
    GrantRequest,
    GrantResponse,
    OpenAccountRequest,
    OpenAccountResponse,
)
from dozen.credits.v1.credits_service_pb2_grpc import CreditsServiceServicer
from dozen_credits.domain.accounts import Grant
from dozen_credits.service.accounts import Accounts, account_message


class CreditsServicer(CreditsServiceServicer):
    """Serves `dozen.credits.v1.CreditsService`."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

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
        grant = Grant(request.idempotency_key, request.account_id, request.nano_credits, request.reason)
        return GrantResponse(account=account_message(await self._accounts.grant(grant)))
