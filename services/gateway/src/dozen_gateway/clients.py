"""Credits, asked with a deadline and only where a lease is short; without them what is leased is promised."""

import grpc.aio

from dozen.credits.v1.credits_service_pb2 import (
    BUDGET_PERIOD_MONTH,
    BUDGET_PERIOD_TOTAL,
    AcquireLeaseRequest,
    Budget,
    ReleaseLeaseRequest,
)
from dozen.credits.v1.credits_service_pb2_grpc import CreditsServiceStub
from dozen_chassis.errors import DependencyUnavailable, Status
from dozen_chassis.grpc import RemoteError, remote_errors
from dozen_gateway.domain.leases import LeaseAnswer, LeaseWish
from dozen_gateway.errors.decisions import CreditsUnavailable

_DEADLINE_SECONDS = 2.0
_PERIODS = {"month": BUDGET_PERIOD_MONTH, "total": BUDGET_PERIOD_TOTAL}


class CreditsClient:
    """Asks `dozen.credits.v1.CreditsService`."""

    def __init__(self, channel: grpc.aio.Channel, *, deadline: float = _DEADLINE_SECONDS) -> None:
        self._stub = CreditsServiceStub(channel)
        self._deadline = deadline

    async def acquire(self, wish: LeaseWish) -> LeaseAnswer:
        """Open, extend or renew a lease; an account that credits do not know has nothing."""
        request = AcquireLeaseRequest(
            account_id=wish.account,
            holder=wish.holder,
            needed_nano_credits=wish.needed,
            wanted_nano_credits=wish.wanted,
            request_token=wish.token,
        )
        if wish.budget is not None:
            request.budget.CopyFrom(
                Budget(
                    key_id=wish.key,
                    nano_credits=wish.budget.nano_credits,
                    period=_PERIODS[wish.budget.period],
                )
            )
        try:
            with remote_errors():
                response = await self._stub.AcquireLease(request, timeout=self._deadline)
        except DependencyUnavailable as error:
            raise CreditsUnavailable() from error
        except RemoteError as error:
            if error.status is Status.NOT_FOUND:
                return LeaseAnswer("", 0, 0, 0.0, 0, 0, None)
            raise CreditsUnavailable() from error
        lease = response.lease
        return LeaseAnswer(
            lease_id=lease.id,
            granted=lease.nano_credits - lease.returned_nano_credits,
            added=response.added_nano_credits,
            lifetime=response.lifetime.ToTimedelta().total_seconds(),
            available=response.balance.available_nano_credits,
            version=response.balance.version,
            rest=response.budget_left_nano_credits if response.HasField("budget_left_nano_credits") else None,
        )

    async def release(self, lease_id: str, held: int) -> tuple[int, bool]:
        """Return what is neither spent nor held; give what is left of the grant, and whether it is closed."""
        request = ReleaseLeaseRequest(lease_id=lease_id, held_nano_credits=held)
        try:
            with remote_errors():
                response = await self._stub.ReleaseLease(request, timeout=self._deadline)
        except (DependencyUnavailable, RemoteError) as error:
            raise CreditsUnavailable() from error
        lease = response.lease
        return lease.nano_credits - lease.returned_nano_credits, lease.HasField("closed_at")
