"""The gateway, as jobs asks it: once for each submission, with a deadline; without it none is taken."""

import logging
from collections.abc import Mapping
from datetime import timedelta

import grpc.aio

from dozen.gateway.v1.gateway_pb2 import RequestFacts
from dozen.gateway.v1.gateway_service_pb2 import DecideRequest, ReportOutcomesRequest, RequestOutcome
from dozen.gateway.v1.gateway_service_pb2_grpc import GatewayServiceStub
from dozen_chassis.errors import DependencyUnavailable
from dozen_chassis.grpc import RemoteError, remote_errors
from dozen_jobs.domain.submissions import Facts
from dozen_jobs.errors.refusals import SubmissionRefused

log = logging.getLogger(__name__)

_DEADLINE_SECONDS = 5.0


class GatewayClient:
    """Asks `dozen.gateway.v1.GatewayService`."""

    def __init__(self, channel: grpc.aio.Channel, *, deadline: float = _DEADLINE_SECONDS) -> None:
        self._stub = GatewayServiceStub(channel)
        self._deadline = deadline

    async def admit(
        self, key_id: str, request_id: str, wanted: Facts, valid_for: timedelta
    ) -> Mapping[str, str]:
        """Give the headers of the admission; raise `SubmissionRefused` where there is none."""
        request = DecideRequest(
            facts=RequestFacts(
                method=wanted.method,
                path=wanted.path,
                body_bytes=wanted.body_bytes,
                model=wanted.model,
                max_tokens=wanted.max_tokens,
                choices=wanted.choices,
            ),
            key_id=key_id,
            request_id=request_id,
        )
        request.time_to_live.FromTimedelta(valid_for)
        try:
            with remote_errors():
                response = await self._stub.Decide(request, timeout=self._deadline)
        except RemoteError as error:  # a decision never ends so: the gateway is broken, not the client
            log.error("the gateway did not decide: %s (%s)", error.message, error.code)
            raise DependencyUnavailable() from error
        if not response.HasField("rejection"):
            return response.admitted.admission.headers
        rejection = response.rejection
        raise SubmissionRefused(
            rejection.http_status,
            rejection.type,
            rejection.code,
            rejection.message,
            param=rejection.param or None,
            headers=rejection.headers,
        )

    async def withdraw(self, request_id: str) -> None:
        """Say that an admitted request is never going to be sent; unheard, what is held for it expires."""
        outcome = RequestOutcome(request_id=request_id, unsent=True)
        try:
            with remote_errors():
                await self._stub.ReportOutcomes(
                    ReportOutcomesRequest(outcomes=[outcome]), timeout=self._deadline
                )
        except (DependencyUnavailable, RemoteError) as error:
            log.warning("an admission could not be withdrawn: %s", error.message)
