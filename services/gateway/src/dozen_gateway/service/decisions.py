"""Decisions on requests, and the signed headers of those that are admitted."""

import asyncio
import re
import time
from collections.abc import Callable, Mapping
from random import Random
from typing import NamedTuple, Protocol

from prometheus_client import Counter, Histogram

from dozen_chassis.admission import Admission
from dozen_chassis.errors import InvalidRequest
from dozen_chassis.signing import derive_key
from dozen_gateway.domain import rejections
from dozen_gateway.domain.decision import Admitted, Caller, Facts, decide, identify
from dozen_gateway.domain.limits import Cost
from dozen_gateway.domain.promises import Shortage
from dozen_gateway.domain.rejections import Rejection
from dozen_gateway.domain.route_table import ROUTES
from dozen_gateway.domain.state import State
from dozen_gateway.errors.decisions import CreditsUnavailable, LimitsUnavailable
from dozen_gateway.service.holds import HoldService
from dozen_gateway.service.leases import LeaseService

DECISIONS = Counter("dozen_gateway_decisions", "Decisions on requests.", ["outcome", "code"])
SHORTAGES = Histogram(
    "dozen_gateway_shortage_seconds", "Time that decisions waited for leases or permits.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)  # fmt: skip

DEFAULT_LIFETIME_SECONDS = 60.0
LONGEST_LIFETIME_SECONDS = 24 * 3600.0
SHORTAGE_SECONDS = 2.5
"""How long a decision waits at most for what is short."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_ROUNDS = 5


class Limiter(Protocol):
    """Where permits come from."""

    async def draw(self, costs: tuple[Cost, ...]) -> None:
        """Fetch what is missing; raise `LimitsUnavailable` where nobody can tell."""
        ...


class KeyLookup(Protocol):
    """Where keys are that are not known here yet."""

    async def look_up(self, api_key: str) -> bool:
        """Look for a key that was refused; True where there is news of it."""
        ...


class Passage(NamedTuple):
    """What an admitted request is given on its way."""

    service: str
    address: str
    """Base URL of the service."""
    admission: Admission
    headers: Mapping[str, str]
    """The admission, signed."""
    answer_headers: Mapping[str, str]
    """For the client: how much its limits leave."""


class DecisionService:
    """Decides on requests from what is in memory; it waits only where a lease or permits are short."""

    def __init__(
        self,
        state: State,
        leases: LeaseService,
        limiter: Limiter,
        holds: HoldService,
        keys: KeyLookup,
        addresses: Mapping[str, str],
        master_key: bytes,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        draw: Random | None = None,
    ) -> None:
        services = {route.service for route in ROUTES}
        if missing := services - set(addresses):
            raise ValueError(f"There is no address of {', '.join(sorted(missing))}.")
        self._state = state
        self._leases = leases
        self._limiter = limiter
        self._holds = holds
        self._lookup = keys
        self._addresses = addresses
        self._keys = {service: derive_key(master_key, f"admission:{service}") for service in services}
        self._clock = clock
        self._monotonic = monotonic
        self._draw = draw or Random()
        self._admitted = DECISIONS.labels("admitted", "")

    async def identify(self, facts: Facts) -> Caller | Rejection:
        """Find who asks for which route, or reject a request, before its body is read."""
        caller = identify(facts, self._state, self._clock())
        if isinstance(caller, Rejection):
            if await self._has_news(caller, facts):
                caller = identify(facts, self._state, self._clock())
            if isinstance(caller, Rejection):
                return _count(caller)
        return caller

    async def decide(
        self,
        facts: Facts,
        request_id: str,
        lifetime: float = DEFAULT_LIFETIME_SECONDS,
        *,
        caller: Caller | None = None,
    ) -> Passage | Rejection:
        """Admit or reject a request, which is charged under the id; `lifetime` is in seconds.

        What the request may cost is held from then on, until it is settled or `finish` says that it was
        never sent. Where `identify` has found its caller, it is not looked for again.
        """
        if not _REQUEST_ID.fullmatch(request_id):
            raise InvalidRequest(
                "A request id has 1 to 128 letters, digits and characters of _.:-", param="request_id"
            )
        if lifetime <= 0:
            raise InvalidRequest("An admission must live for some time.", param="time_to_live")
        lifetime = min(lifetime, LONGEST_LIFETIME_SECONDS)
        decision = self._decide(facts, caller)
        if isinstance(decision, Rejection) and await self._has_news(decision, facts):
            decision = self._decide(facts)
        if isinstance(decision, Shortage):
            return await self._decide_in_turn(facts, request_id, lifetime, decision)
        return self._conclude(decision, facts, request_id, lifetime)

    def finish(self, request_id: str, *, unsent: bool = False) -> None:
        """Note that an admitted request has ended, or that no service was given it."""
        self._holds.finish(request_id, unsent=unsent)

    async def _has_news(self, rejection: Rejection, facts: Facts) -> bool:
        is_refused = rejection.code == rejections.WRONG_KEY and facts.api_key != ""
        return is_refused and await self._lookup.look_up(facts.api_key)

    def _decide(self, facts: Facts, caller: Caller | None = None) -> Admitted | Rejection | Shortage:
        return decide(facts, self._state, self._clock(), self._monotonic(), self._draw, caller)

    async def _decide_in_turn(
        self, facts: Facts, request_id: str, lifetime: float, shortage: Shortage
    ) -> Passage | Rejection:
        with SHORTAGES.time():
            try:
                async with (
                    asyncio.timeout(SHORTAGE_SECONDS),
                    self._leases.turn(shortage.account, shortage.purse_key) as purse,
                ):
                    for _ in range(_ROUNDS):
                        decision = self._decide(facts)
                        if not isinstance(decision, Shortage):
                            # Without a pause since the decision, so that nobody else has taken what it found.
                            return self._conclude(decision, facts, request_id, lifetime)
                        if decision.purse_key != shortage.purse_key:  # its budget has changed meanwhile
                            break
                        if decision.missing_nano_credits:
                            await self._leases.supply(purse, decision.nano_credits)
                        if decision.permits:
                            await self._limiter.draw(decision.permits)
            except LimitsUnavailable:
                return _count(rejections.limits_unavailable())
            except (CreditsUnavailable, TimeoutError):
                pass
        return _count(rejections.credits_unavailable())

    def _conclude(
        self, decision: Admitted | Rejection, facts: Facts, request_id: str, lifetime: float
    ) -> Passage | Rejection:
        if isinstance(decision, Rejection):
            return _count(decision)
        self._admitted.inc()
        self._holds.open(request_id, decision, lifetime)
        if decision.deployments and lifetime <= DEFAULT_LIFETIME_SECONDS:  # others are sent at another time
            self._state.loads.begin(request_id, decision.deployments[0].id, self._monotonic())
        if decision.promise.purse is not None:
            self._leases.top_up(decision.promise.purse)
        return self._passage(decision, f"{facts.method} {facts.path}", request_id, lifetime)

    def _passage(self, admitted: Admitted, operation: str, request_id: str, lifetime: float) -> Passage:
        promise = admitted.promise
        admission = Admission(admitted.account, admitted.key, request_id, operation, admitted.facts)
        return Passage(
            service=admitted.service,
            address=(
                admitted.deployments[0].address if admitted.deployments else self._addresses[admitted.service]
            ),
            admission=admission,
            headers=admission.headers(self._keys[admitted.service], int(self._clock() + lifetime)),
            answer_headers=(
                self._state.permits.headers(promise.costs, self._monotonic()) if promise.costs else {}
            ),
        )


def _count(rejection: Rejection) -> Rejection:
    DECISIONS.labels("rejected", rejection.code).inc()
    return rejection
