"""gRPC servicer of the gateway."""

import grpc.aio

from dozen.gateway.v1.gateway_pb2 import Admission
from dozen.gateway.v1.gateway_pb2 import Rejection as RejectionMessage
from dozen.gateway.v1.gateway_service_pb2 import (
    Admitted,
    CreateApiKeyRequest,
    CreateApiKeyResponse,
    DecideRequest,
    DecideResponse,
    ListAccountLimitsRequest,
    ListAccountLimitsResponse,
    ListApiKeysRequest,
    ListApiKeysResponse,
    ReportOutcomesRequest,
    ReportOutcomesResponse,
    RevokeApiKeyRequest,
    RevokeApiKeyResponse,
    RotateApiKeyRequest,
    RotateApiKeyResponse,
    SetAccountLimitsRequest,
    SetAccountLimitsResponse,
    UpdateApiKeyRequest,
    UpdateApiKeyResponse,
)
from dozen.gateway.v1.gateway_service_pb2_grpc import GatewayServiceServicer
from dozen_chassis.http import new_request_id
from dozen_gateway.domain.bounds import Asked
from dozen_gateway.domain.decision import Facts
from dozen_gateway.domain.key_terms import KeyTerms, changes_to
from dozen_gateway.domain.keys import DEFAULT_GRACE_SECONDS
from dozen_gateway.domain.rejections import Rejection
from dozen_gateway.service.account_limits import AccountLimitsService
from dozen_gateway.service.decisions import DEFAULT_LIFETIME_SECONDS, DecisionService
from dozen_gateway.service.key_messages import api_key_message, read_seconds, read_terms
from dozen_gateway.service.keys import KeyService


class GatewayServicer(GatewayServiceServicer):
    """Serves `dozen.gateway.v1.GatewayService`."""

    def __init__(
        self, decisions: DecisionService, keys: KeyService, account_limits: AccountLimitsService
    ) -> None:
        self._decisions = decisions
        self._keys = keys
        self._account_limits = account_limits

    async def Decide(self, request: DecideRequest, context: grpc.aio.ServicerContext) -> DecideResponse:
        lifetime = DEFAULT_LIFETIME_SECONDS
        if request.HasField("time_to_live"):
            lifetime = request.time_to_live.ToTimedelta().total_seconds()
        decision = await self._decisions.decide(
            _facts(request), request.request_id or new_request_id(), lifetime
        )
        if isinstance(decision, Rejection):
            return DecideResponse(rejection=_rejection(decision))
        return DecideResponse(
            admitted=Admitted(
                service=decision.service,
                address=decision.address,
                admission=Admission(headers=decision.headers),
            )
        )

    async def CreateApiKey(
        self, request: CreateApiKeyRequest, context: grpc.aio.ServicerContext
    ) -> CreateApiKeyResponse:
        terms = read_terms(request.terms) if request.HasField("terms") else KeyTerms(request.name)
        issued = await self._keys.create(request.account_id, terms, request.idempotency_key or None)
        return CreateApiKeyResponse(api_key=api_key_message(issued.key), secret=issued.text)

    async def ListApiKeys(
        self, request: ListApiKeysRequest, context: grpc.aio.ServicerContext
    ) -> ListApiKeysResponse:
        found = await self._keys.list_all(request.account_id)
        return ListApiKeysResponse(api_keys=[api_key_message(key) for key in found])

    async def UpdateApiKey(
        self, request: UpdateApiKeyRequest, context: grpc.aio.ServicerContext
    ) -> UpdateApiKeyResponse:
        changes = changes_to(read_terms(request.terms))
        key = await self._keys.update(request.account_id, request.key_id, changes)
        return UpdateApiKeyResponse(api_key=api_key_message(key))

    async def RotateApiKey(
        self, request: RotateApiKeyRequest, context: grpc.aio.ServicerContext
    ) -> RotateApiKeyResponse:
        grace = read_seconds(request.grace) if request.HasField("grace") else DEFAULT_GRACE_SECONDS
        issued = await self._keys.rotate(
            request.account_id, request.key_id, grace=grace, idempotency_key=request.idempotency_key or None
        )
        return RotateApiKeyResponse(api_key=api_key_message(issued.key), secret=issued.text)

    async def RevokeApiKey(
        self, request: RevokeApiKeyRequest, context: grpc.aio.ServicerContext
    ) -> RevokeApiKeyResponse:
        key = await self._keys.revoke(request.account_id, request.key_id)
        return RevokeApiKeyResponse(api_key=api_key_message(key))

    async def ReportOutcomes(
        self, request: ReportOutcomesRequest, context: grpc.aio.ServicerContext
    ) -> ReportOutcomesResponse:
        for outcome in request.outcomes:
            self._decisions.finish(outcome.request_id, unsent=outcome.unsent)
        return ReportOutcomesResponse()

    async def SetAccountLimits(
        self, request: SetAccountLimitsRequest, context: grpc.aio.ServicerContext
    ) -> SetAccountLimitsResponse:
        return SetAccountLimitsResponse(limits=await self._account_limits.set(request.limits))

    async def ListAccountLimits(
        self, request: ListAccountLimitsRequest, context: grpc.aio.ServicerContext
    ) -> ListAccountLimitsResponse:
        return ListAccountLimitsResponse(limits=await self._account_limits.list(request.account_id))


def _facts(request: DecideRequest) -> Facts:
    facts = request.facts
    return Facts(
        method=facts.method,
        path=facts.path,
        model=facts.model,
        stream=facts.stream,
        asked=Asked(
            body_bytes=facts.body_bytes,
            choices=facts.choices if facts.HasField("choices") else 1,
            max_tokens=facts.max_tokens if facts.HasField("max_tokens") else None,
            media_parts=facts.media_parts,
        ),
        client_address=facts.client_address,
        api_key=request.api_key,
        key_id=request.key_id,
        prefix=facts.prefix,
    )


def _rejection(rejection: Rejection) -> RejectionMessage:
    return RejectionMessage(
        http_status=rejection.http_status,
        type=rejection.type,
        code=rejection.code,
        param=rejection.param or "",
        message=rejection.message,
        headers=rejection.headers,
    )
