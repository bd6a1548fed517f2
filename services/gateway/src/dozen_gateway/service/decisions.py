"""Decisions on requests, and the signed headers of those that are admitted."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from prometheus_client import Counter

from dozen_chassis.admission import Admission
from dozen_chassis.errors import InvalidRequest
from dozen_chassis.signing import derive_key
from dozen_gateway.domain.decision import Admitted, Facts, decide, identify
from dozen_gateway.domain.rejections import Rejection
from dozen_gateway.domain.route_table import ROUTES, Route
from dozen_gateway.domain.state import State

DECISIONS = Counter("dozen_gateway_decisions", "Decisions on requests.", ["outcome", "code"])

DEFAULT_LIFETIME_SECONDS = 60.0
LONGEST_LIFETIME_SECONDS = 24 * 3600.0

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


@dataclass(frozen=True, slots=True)
class Passage:
    """What an admitted request is given on its way."""

    service: str
    address: str
    """Base URL of the service."""
    admission: Admission
    headers: Mapping[str, str]
    """The admission, signed."""


class DecisionService:
    """Decides on requests from what is in memory; it waits for nothing."""

    def __init__(
        self,
        state: State,
        addresses: Mapping[str, str],
        master_key: bytes,
        *,
        clock: Callable[[], float] = time.time,
        draw: Random | None = None,
    ) -> None:
        services = {route.service for route in ROUTES}
        if missing := services - set(addresses):
            raise ValueError(f"There is no address of {', '.join(sorted(missing))}.")
        self._state = state
        self._addresses = addresses
        self._keys = {service: derive_key(master_key, f"admission:{service}") for service in services}
        self._clock = clock
        self._draw = draw or Random()

    def identify(self, facts: Facts) -> Route | Rejection:
        """Find the route of a request, or reject it, before its body is read."""
        caller = identify(facts, self._state)
        if isinstance(caller, Rejection):
            return _count(caller)
        return caller.route

    def decide(
        self, facts: Facts, request_id: str, lifetime: float = DEFAULT_LIFETIME_SECONDS
    ) -> Passage | Rejection:
        """Admit or reject a request, which is charged under the id; `lifetime` is in seconds."""
        if not _REQUEST_ID.fullmatch(request_id):
            raise InvalidRequest(
                "A request id has 1 to 128 letters, digits and characters of _.:-", param="request_id"
            )
        if lifetime <= 0:
            raise InvalidRequest("An admission must live for some time.", param="time_to_live")
        now = self._clock()
        decision = decide(facts, self._state, now, self._draw)
        if isinstance(decision, Rejection):
            return _count(decision)
        DECISIONS.labels("admitted", "").inc()
        expires_at = int(now + min(lifetime, LONGEST_LIFETIME_SECONDS))
        return self._passage(decision, f"{facts.method} {facts.path}", request_id, expires_at)

    def _passage(self, admitted: Admitted, operation: str, request_id: str, expires_at: int) -> Passage:
        facts = {}
        if admitted.model is not None and admitted.price is not None:
            facts = {
                "model": admitted.model,
                "deployments": ",".join(deployment.id for deployment in admitted.deployments),
                "price": admitted.price,
            }
        admission = Admission(admitted.account, admitted.key, request_id, operation, facts)
        return Passage(
            service=admitted.service,
            address=(
                admitted.deployments[0].address if admitted.deployments else self._addresses[admitted.service]
            ),
            admission=admission,
            headers=admission.headers(self._keys[admitted.service], expires_at),
        )


def _count(rejection: Rejection) -> Rejection:
    DECISIONS.labels("rejected", rejection.code).inc()
    return rejection
