"""Parts that are broken on purpose, in one way each: not finding them, a simulation proves nothing."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from dozen_credits.domain.leases import Budget, LeaseWish
from dozen_gateway.domain.decision import Admitted
from dozen_gateway.domain.holds import Settlements
from dozen_gateway.domain.leases import Lease, LeaseAnswer, Purse
from dozen_gateway.errors.decisions import CreditsUnavailable
from dozen_gateway.service.holds import HoldService
from dozen_gateway.service.leases import LeaseService
from simulation.books import Books
from simulation.stage import Parts
from simulation.transport import Link


class ForgetfulBooks(Books):
    """Do not know which requests were charged."""

    async def claim(self, requests: Mapping[str, datetime]) -> set[str]:
        await super().claim(requests)
        return set(requests)


class RepetitiveBooks(Books):
    """Do not know which calls have added to a lease."""

    async def find_extension(self, wish: LeaseWish) -> tuple[str, int] | None:
        return None


class GenerousBooks(Books):
    """Do not count what leases have of a budget."""

    async def committed(self, account_id: str, budget: Budget) -> int:
        return sum(amount for key, amount in self.tables.spending.items() if key.key_id == budget.key_id)


class BoundlessLeases(LeaseService):
    """Promises more than a lease has."""

    def _renewed(self, lease: Lease, answer: LeaseAnswer, began: float) -> None:
        super()._renewed(lease, replace(answer, granted=answer.granted * 2), began)


class HopefulLeases(LeaseService):
    """Counts the lifetime of a lease from the answer instead of from the call."""

    def _renewed(self, lease: Lease, answer: LeaseAnswer, began: float) -> None:
        super()._renewed(lease, answer, self._monotonic())


class StubbornLeases(LeaseService):
    """Goes on promising from a lease after a call that returns some of it got lost."""

    async def _give_back(self, purse: Purse) -> None:
        lease = purse.lease
        try:
            await super()._give_back(purse)
        except CreditsUnavailable:
            _use_again(purse, lease)
            raise


class ThriftyLeases(LeaseService):
    """Goes on promising from a lease after some of it was returned."""

    async def _give_back(self, purse: Purse) -> None:
        lease = purse.lease
        await super()._give_back(purse)
        _use_again(purse, lease)


class BusyLeases(LeaseService):
    """Promises from a lease while some of it is being returned."""

    async def _return(self, purse: Purse) -> None:
        lease = purse.returned[-1] if purse.returned else None
        if purse.lease is None:
            purse.lease = lease
        try:
            await super()._return(purse)
        finally:
            if purse.lease is lease:
                purse.lease = None


class RestoredLeases(LeaseService):
    """Asks under the same name again after a lease was returned, and so gets it once more."""

    async def _give_back(self, purse: Purse) -> None:
        try:
            await super()._give_back(purse)
        finally:
            purse.generation = 0


class SharedLeases(LeaseService):
    """Has one name for all keys, so that those with a budget have the account's lease once they lose it."""

    async def _ask(self, purse: Purse, holder: str, needed: int, wanted: int) -> LeaseAnswer:
        return await super()._ask(purse, holder.replace(purse.key, ""), needed, wanted)


class NamesakeLeases(LeaseService):
    """Has the name of every other, and of the one before it."""

    async def _acquire(self, purse: Purse, needed: int, wanted: int) -> LeaseAnswer:
        self._holder = "gateway"
        return await super()._acquire(purse, needed, wanted)


class GreedyLink(Link):
    """Returns what is held, too."""

    async def release(self, lease_id: str, held: int) -> tuple[int, bool]:
        return await super().release(lease_id, 0)


class UnsettledHolds(HoldService):
    """Forgets what settled requests have cost."""

    def settle(self, settlements: Settlements) -> None:
        super().settle(
            {request_id: one._replace(leased_nano_credits=0) for request_id, one in settlements.items()}
        )


class HastyHolds(HoldService):
    """Takes a request whose client has left for one that costs nothing."""

    def finish(self, request_id: str, *, unsent: bool = False) -> None:
        super().finish(request_id, unsent=True)


class ForgottenHolds(HoldService):
    """Holds for a request what it was promised last, though it may go with an earlier answer."""

    def open(self, request_id: str, admitted: Admitted, lifetime: float) -> None:
        self._state.holds.close(request_id)
        super().open(request_id, admitted, lifetime)


class LastingHolds(HoldService):
    """Never gives up a hold."""

    async def sweep(self) -> None:
        pass


BROKEN: Mapping[str, Parts] = {
    "usage is not deduplicated": Parts(books=ForgetfulBooks),
    "calls that add to a lease are not deduplicated": Parts(books=RepetitiveBooks),
    "leases do not count against a budget": Parts(books=GenerousBooks),
    "more is promised than a lease has": Parts(lease_service=BoundlessLeases),
    "a lease lives from the answer on": Parts(lease_service=HopefulLeases),
    "a lease is used after its release got lost": Parts(lease_service=StubbornLeases),
    "a lease is used after some of it was returned": Parts(lease_service=ThriftyLeases),
    "a lease is used while it is returned": Parts(lease_service=BusyLeases),
    "a lease that was returned is had again": Parts(lease_service=RestoredLeases),
    "all keys have one name": Parts(lease_service=SharedLeases),
    "all gateways have one name": Parts(lease_service=NamesakeLeases),
    "what is held is returned": Parts(link=GreedyLink),
    "what is settled is not counted": Parts(hold_service=UnsettledHolds),
    "a hold ends with its client": Parts(hold_service=HastyHolds),
    "only the last of several decisions holds": Parts(hold_service=ForgottenHolds),
    "holds last for ever": Parts(hold_service=LastingHolds),
    "expired leases are closed at once": Parts(grace=0.0),
}


def _use_again(purse: Purse, lease: Lease | None) -> None:
    if lease is not None and lease in purse.returned:
        purse.returned.remove(lease)
        purse.lease = lease
        purse.generation -= 1
