"""The first account of a fresh deployment, with credits and a key, made through the services' contracts."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from dozen.credits.v1.credits_service_pb2 import GrantRequest, OpenAccountRequest
from dozen.credits.v1.credits_service_pb2_grpc import CreditsServiceStub
from dozen.gateway.v1.gateway_pb2 import RequestFacts
from dozen.gateway.v1.gateway_service_pb2 import (
    CreateApiKeyRequest,
    DecideRequest,
    ListApiKeysRequest,
    ReportOutcomesRequest,
    RequestOutcome,
)
from dozen.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from dozen_local.catalogue import read_capabilities
from dozen_local.credentials import Credentials
from dozen_local.environment import read_env
from dozen_local.layout import Layout
from dozen_local.processes import POLL_SECONDS, ProcessFailed

OPERATOR = "operator"
"""The name under which we call the services."""
ACCOUNT = "demo"
CREDITS = 10
NANO_CREDITS = 1_000_000_000
CALL_SECONDS = 10.0
USABLE_SECONDS = 15.0
PATHS = {
    "chat": "/v1/chat/completions",
    "completion": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "images.analyses": "/v1/images/analyses",
    "audio.transcriptions": "/v1/audio/transcriptions",
    "audio.speech": "/v1/audio/speech",
}
"""Where each of a model's capabilities is asked for."""


@dataclass(frozen=True)
class Access:
    """What a client needs to call the platform."""

    api_key: str
    refusal: str | None
    """Why the key cannot be used at the moment, None where it can."""


def bootstrap(layout: Layout, credentials: Credentials) -> Access:
    """Open the account, give it its credits once, and return the key of the env file or a new one."""
    with (
        grpc.insecure_channel(layout.grpc_address("credits")) as to_credits,
        grpc.insecure_channel(layout.grpc_address("gateway")) as to_gateway,
    ):
        try:
            _fund_account(CreditsServiceStub(to_credits), _options(credentials, "credits"))
            stub, options = GatewayServiceStub(to_gateway), _options(credentials, "gateway")
            key = read_env(layout.env_file).get("OPENAI_API_KEY", "")
            if not _exists(stub, options, key):
                request = CreateApiKeyRequest(account_id=ACCOUNT, name="local")
                key = stub.CreateApiKey(request, **options).secret
            questions = [
                RequestFacts(method="POST", path=PATHS[capability], model=model, max_tokens=1)
                for model, capabilities in read_capabilities(layout.catalogue_file).items()
                for capability in capabilities
            ]
            return Access(key, _wait_until_admitted(stub, options, key, questions))
        except grpc.RpcError as error:
            raise ProcessFailed(f"The first account could not be made: {error}") from error


def _options(credentials: Credentials, service: str) -> dict[str, Any]:
    return {
        "metadata": [("authorization", f"Bearer {credentials.token(OPERATOR, service)}")],
        "timeout": CALL_SECONDS,
        "wait_for_ready": True,
    }


def _fund_account(stub: CreditsServiceStub, options: dict[str, Any]) -> None:
    stub.OpenAccount(OpenAccountRequest(account_id=ACCOUNT, name="Demo"), **options)
    grant = GrantRequest(
        account_id=ACCOUNT,
        nano_credits=CREDITS * NANO_CREDITS,
        idempotency_key=f"{ACCOUNT}-welcome",
        reason="credits to try the platform with",
    )
    stub.Grant(grant, **options)


def _exists(stub: GatewayServiceStub, options: dict[str, Any], key: str) -> bool:
    listed = stub.ListApiKeys(ListApiKeysRequest(account_id=ACCOUNT), **options).api_keys
    return any(
        key.startswith(f"dz-{ACCOUNT}-{known.id}-") for known in listed if not known.HasField("revoked_at")
    )


def _wait_until_admitted(
    stub: GatewayServiceStub, options: dict[str, Any], key: str, questions: Sequence[RequestFacts]
) -> str | None:
    """Wait for the gateway to hear, by events, of the account's credits and of the models' health.

    Nothing of what it admits is sent, and it is told so: nothing is spent. Return why it refuses one of the
    questions after all.
    """
    deadline = time.monotonic() + USABLE_SECONDS
    waiting, refusal = list(questions), None
    while waiting:
        decision = stub.Decide(DecideRequest(facts=waiting[0], api_key=key), **options)
        if decision.HasField("admitted"):
            request_id = decision.admitted.admission.headers["x-request-id"]
            unsent = RequestOutcome(request_id=request_id, unsent=True)
            stub.ReportOutcomes(ReportOutcomesRequest(outcomes=[unsent]), **options)
            waiting.pop(0)
        elif time.monotonic() > deadline:
            refusal = refusal or str(decision.rejection.message)
            waiting.pop(0)
        else:
            time.sleep(POLL_SECONDS)
    return refusal
