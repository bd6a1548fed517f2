"""What was promised to requests and what came of it, watched from above at every step."""

from dataclasses import dataclass, field

from dozen_credits.domain.leases import Lease
from simulation.books import Commit, Tables
from simulation.plan import PRICE, BudgetPlan, Plan
from simulation.world import World


@dataclass(slots=True)
class Promise:
    """A request that was admitted: what it may cost at most, and the lease that is to pay."""

    request_id: str
    account_id: str
    key_id: str
    lease_id: str
    nano_credits: int
    lapses_at: float
    """Past that, its usage is later than anyone has to expect."""


@dataclass
class Promises:
    """Holds of all gateways together, those that crashed too, against what leases have."""

    world: World
    plan: Plan
    tables: Tables
    leases: dict[str, Lease] = field(default_factory=dict)
    """As of the last transaction that changed them."""
    open: dict[str, dict[str, Promise]] = field(default_factory=dict)
    """By lease and request."""
    reported: dict[str, tuple[str, int]] = field(default_factory=dict)
    """What requests used, as first reported: account and cost."""
    unlimited: set[str] = field(default_factory=set)
    """Keys whose budget was taken away."""
    late: set[str] = field(default_factory=set)
    """Accounts with usage that was charged after its promise had lapsed, at the expense of other promises."""
    names: dict[str, str] = field(default_factory=dict)
    """Of leases, in the order in which they were opened."""

    def name(self, lease_id: str) -> str:
        """Give the name of a lease in the trace, which is the same in every run."""
        return self.names.setdefault(lease_id, f"lease{len(self.names) + 1}") if lease_id else "none"

    def make(self, promise: Promise) -> None:
        """Note an admission; its lease must be able to pay for it, unless the request has ended already."""
        if promise.request_id in self.tables.claimed:
            return
        world, lease = self.world, self.leases.get(promise.lease_id)
        name, request_id = self.name(promise.lease_id), promise.request_id
        if lease is None:
            world.expect(False, f"{request_id} is promised credits of no lease")
            return
        before = self.open.setdefault(lease.id, {}).get(request_id)
        if before is None or before.nano_credits <= promise.nano_credits:  # it may go with either answer
            self.open[lease.id][request_id] = promise
        world.expect(lease.closed_at is None, f"{request_id} is promised credits of {name}, which is closed")
        world.expect(
            lease.expires_at >= self.tables.now(),
            f"{request_id} is promised credits of {name}, which has expired",
        )
        self._check_lease(lease.id)

    def abandon(self, request_id: str) -> None:
        """Note that a request will never be charged."""
        for promises in self.open.values():
            promises.pop(request_id, None)

    def report(self, request_id: str, account_id: str, quantities: dict[str, int]) -> None:
        """Note what a request used."""
        cost = sum(amount * PRICE[unit] for unit, amount in quantities.items())
        self.reported.setdefault(request_id, (account_id, cost))

    def committed(self, commit: Commit) -> None:
        """Look at what a transaction of credits has done."""
        for event in commit.events:
            for charge in getattr(event, "charges", ()):
                self._settle(charge.usage.request_id, charge.usage.account_id)
        for lease in commit.leases:
            self.leases[lease.id] = lease
            self._check_lease(lease.id)
        for account in self.plan.accounts:
            if account.id in commit.account_ids and account.id not in self.late:
                self._check_budget(account.budget)

    def _settle(self, request_id: str, account_id: str) -> None:
        for promises in self.open.values():
            promise = promises.pop(request_id, None)
            if promise is not None and self.world.time > promise.lapses_at:
                self.late.add(account_id)

    def _check_lease(self, lease_id: str) -> None:
        lease, now = self.leases[lease_id], self.world.time
        if lease.account_id in self.late:
            return
        promised = sum(
            one.nano_credits for one in self.open.get(lease_id, {}).values() if one.lapses_at >= now
        )
        left = lease.left if lease.closed_at is None else 0
        self.world.expect(promised <= left, f"{self.name(lease_id)} has {left}, and {promised} are promised")

    def _check_budget(self, budget: BudgetPlan | None) -> None:
        if budget is None or budget.key_id in self.unlimited:
            return
        month = self.tables.now().date().replace(day=1)
        charged = sum(
            amount
            for key, amount in self.tables.spending.items()
            if key.key_id == budget.key_id and (not budget.is_monthly or key.month == month)
        )
        leases = (self.tables.leases[lease_id] for lease_id in self.tables.open.values())
        spent = charged + sum(lease.left for lease in leases if lease.key_id == budget.key_id)
        limit = budget.nano_credits
        self.world.expect(spent <= limit, f"{budget.key_id} has spent and leased {spent} of {limit}")
