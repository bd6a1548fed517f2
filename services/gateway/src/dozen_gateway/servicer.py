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
    ListApiKeysRequest,
    ListApiKeysResponse,
    RevokeApiKeyRequest,
    RevokeApiKeyResponse,
)
from dozen.gateway.v1.gateway_service_pb2_grpc import GatewayServiceServicer
from dozen_chassis.http import new_request_id
from dozen_gateway.domain.decision import Facts
from dozen_gateway.domain.rejections import Rejection
from dozen_gateway.service.decisions import DEFAULT_LIFETIME_SECONDS, DecisionService
from dozen_gateway.service.keys import KeyService, api_key_message


class GatewayServicer(GatewayServiceServicer):
    """Serves `dozen.gateway.v1.GatewayService`."""

    def __init__(self, decisions: DecisionService, keys: KeyService) -> None:
        self._decisions = decisions
        self._keys = keys

    async def Decide(self, request: DecideRequest, context: grpc.aio.ServicerContext) -> DecideResponse:
        lifetime = DEFAULT_LIFETIME_SECONDS
        if request.HasField("time_to_live"):
            lifetime = request.time_to_live.ToTimedelta().total_seconds()
        decision = self._decisions.decide(_facts(request), request.request_id or new_request_id(), lifetime)
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
        key, text = await self._keys.create(request.account_id, request.name)
        return CreateApiKeyResponse(api_key=api_key_message(key), secret=text)

    async def ListApiKeys(
        self, request: ListApiKeysRequest, context: grpc.aio.ServicerContext
    ) -> ListApiKeysResponse:
        found = await self._keys.list_all(request.account_id)
        return ListApiKeysResponse(api_keys=[api_key_message(key) for key in found])

    async def RevokeApiKey(
        self, request: RevokeApiKeyRequest, context: grpc.aio.ServicerContext
    ) -> RevokeApiKeyResponse:
        key = await self._keys.revoke(request.account_id, request.key_id)
        return RevokeApiKeyResponse(api_key=api_key_message(key))


def _facts(request: DecideRequest) -> Facts:
    facts = request.facts
    return Facts(
        method=facts.method,
        path=facts.path,
        model=facts.model,
        stream=facts.stream,
        max_tokens=facts.max_tokens if facts.HasField("max_tokens") else None,
        choices=facts.choices if facts.HasField("choices") else 1,
        body_bytes=facts.body_bytes,
        client_address=facts.client_address,
        api_key=request.api_key,
        key_id=request.key_id,
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
