"""What a run is to be like; all of it follows from the seed."""

from dataclasses import dataclass
from random import Random
from typing import Self

PRICE = {"input_tokens": 1, "cached_input_tokens": 1, "output_tokens": 10, "images": 120}
"""Nano-credits."""


@dataclass(frozen=True, slots=True)
class Faults:
    """How likely it is that something goes wrong, each time that it can."""

    lost: float
    """A call, or its answer, does not arrive."""
    slow: float
    """A call arrives when its caller may have given up."""
    broken: float
    """A connection breaks under a call, which may arrive nevertheless, while it is made again."""
    repeated: float
    """A message is delivered once more."""
    late: float
    """A message takes long."""


@dataclass(frozen=True, slots=True)
class BudgetPlan:
    """What a key may spend."""

    key_id: str
    nano_credits: int
    is_monthly: bool


@dataclass(frozen=True, slots=True)
class AccountPlan:
    """An account with its first balance; it has a key without a budget, and perhaps one with."""

    id: str
    balance: int
    budget: BudgetPlan | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is to be like."""

    seed: int
    replicas: int
    accounts: tuple[AccountPlan, ...]
    calls: int
    busy_seconds: float
    """How long requests keep coming, and things go wrong."""
    lease_seconds: float
    longest_request: float
    lifetime: float
    """Of admissions."""
    sweep_seconds: float
    faults: Faults
    gateway_crashes: int
    credits_crashes: int
    service_crashes: int
    cuts: int
    """How often a gateway loses its database or credits for some time, or all lose NATS."""
    jumps: int
    """How often the clock of a gateway jumps."""
    grants: int
    lifts: int
    """How often a key loses its budget."""
    is_overdue: bool
    """Whether some usage is reported too late, so that no promise covers it."""
    month_ends_after: float
    """Seconds from the beginning."""

    @classmethod
    def draw(cls, seed: int) -> Self:
        """Draw a plan."""
        random = Random(f"plan {seed}")
        wild = random.choice((0.0, 0.5, 1.0, 1.0, 2.0))

        def fault(most: float) -> float:
            return random.random() * most * wild

        def times(most: int) -> int:
            return round(random.random() * most * wild)

        return cls(
            seed=seed,
            replicas=random.choice((1, 2, 2, 3)),
            accounts=tuple(_account(f"acme{number}", random) for number in range(random.randint(1, 2))),
            calls=random.randint(5, 30),
            busy_seconds=random.uniform(5, 25),
            lease_seconds=random.uniform(4, 10),
            longest_request=random.uniform(16, 24),
            lifetime=random.uniform(1, 10),
            sweep_seconds=random.uniform(1, 4),
            faults=Faults(fault(0.2), fault(0.15), fault(0.4), fault(0.3), fault(0.2)),
            gateway_crashes=times(2),
            credits_crashes=times(2),
            service_crashes=times(2),
            cuts=times(4),
            jumps=times(2),
            grants=random.choice((0, 0, 1, 2)),
            lifts=random.choice((0, 0, 0, 1)),
            is_overdue=random.random() < 0.05,
            month_ends_after=random.uniform(1, 30) if random.random() < 0.2 else 10**6,
        )


def _account(account_id: str, random: Random) -> AccountPlan:
    balance = random.choice((0, 500, 1_000, 2_000, 2_000, 4_000, 4_000, 8_000, 60_000)) + random.randint(
        0, 300
    )
    budget = random.choice((None, random.randint(50, 500), random.randint(300, 3000)))
    return AccountPlan(
        account_id,
        balance,
        BudgetPlan(f"{account_id}_limited", budget, random.random() < 0.5) if budget else None,
    )
