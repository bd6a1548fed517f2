"""Leases: parts of balances that this replica alone may promise to requests."""

from dataclasses import dataclass

from dozen_gateway.domain.keys import Budget


class Lease:
    """A part of an account's balance, and what is promised and spent of it."""

    __slots__ = ("granted", "held", "holder", "id", "lifetime", "settled", "valid_until")

    def __init__(self, lease_id: str, holder: str = "") -> None:
        self.id = lease_id
        self.holder = holder
        """The name that it was acquired under."""
        self.granted = 0
        """What was moved into it, less what went back."""
        self.settled = 0
        """What its requests have cost."""
        self.held = 0
        """What is promised to requests that are not settled."""
        self.lifetime = 0.0
        """Seconds that it lasts after a call."""
        self.valid_until = 0.0
        """Monotonic seconds; past it nothing more is promised."""

    @property
    def free(self) -> int:
        """What can still be promised."""
        return self.granted - self.settled - self.held


class Purse:
    """What an account, or a key of it that has a budget, may spend at this replica."""

    __slots__ = (
        "account", "acquired_at", "generation", "key", "lease", "refused_until", "rest", "returned",
        "used_at", "wanted",
    )  # fmt: skip

    def __init__(self, account: str, key: str) -> None:
        self.account = account
        self.key = key
        """Empty where all keys of the account without a budget share it."""
        self.lease: Lease | None = None
        self.returned: list[Lease] = []
        """Leases that nothing more is promised from, and that are still open."""
        self.generation = 0
        """Counts those."""
        self.wanted = 0
        """What to have at hand, so that credits are seldom asked."""
        self.acquired_at = 0.0
        self.used_at = 0.0
        self.refused_until = 0.0
        """Until then credits need not be asked again for what they did not have."""
        self.rest: int | None = None
        """What the budget has left beyond the lease, as last told; None without a budget."""

    def free(self, monotonic: float) -> int:
        """Give what can be promised at once."""
        lease = self.lease
        if lease is None or lease.valid_until <= monotonic:
            return 0
        return max(0, lease.free)

    def returnable(self) -> list[Lease]:
        """Give those of the returned leases of which there may be more to return."""
        return [lease for lease in self.returned if lease.free > 0 or lease.held == 0]


@dataclass(frozen=True, slots=True)
class LeaseWish:
    """What credits are asked for; nothing needed only renews."""

    account: str
    key: str
    budget: Budget | None
    holder: str
    needed: int
    wanted: int
    token: str
    """The same in a repeated call, which then adds nothing more."""


@dataclass(frozen=True, slots=True)
class LeaseAnswer:
    """What credits say of a holder's lease."""

    lease_id: str
    """Empty where it has none."""
    granted: int
    """What was moved into it, less what went back."""
    added: int
    lifetime: float
    """Seconds from the call on."""
    available: int
    version: int
    rest: int | None
    """What the budget has left beyond the lease; None where there is none."""
