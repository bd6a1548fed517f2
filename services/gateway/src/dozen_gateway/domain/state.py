"""What a decision is made from, in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby
from typing import NamedTuple, TypeVar

from dozen_gateway.domain.holds import Holds, Settlements
from dozen_gateway.domain.keys import ApiKey
from dozen_gateway.domain.leases import Purse
from dozen_gateway.domain.limits import AccountLimits
from dozen_gateway.domain.loads import Loads
from dozen_gateway.domain.permits import Permits

Fact = TypeVar("Fact")


@dataclass(frozen=True, slots=True)
class Account:
    """An account's balance, as of a version of it."""

    available_nano_credits: int
    version: int


@dataclass(frozen=True, slots=True)
class Deployment:
    """A place where a model is served."""

    id: str
    service: str
    address: str
    priority: int
    """Lower is tried first."""
    weight: int
    """Share of the traffic among equals in priority."""


class Place(NamedTuple):
    """A deployment among its equals in priority, with what choosing between them needs."""

    id: str
    deployment: Deployment
    weight: float
    power: float
    """One over the weight, where there is one."""
    seed: int
    """What tells its draws from those of the others; 64 bits, the same in every replica."""


Tier = tuple[Place, ...]


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the catalogue."""

    id: str
    capabilities: frozenset[str]
    context_length: int
    """In tokens; 0 where there is no limit."""
    deployments: tuple[Deployment, ...]
    fallbacks: tuple[str, ...] = ()
    """Models that answer, in this order, where no deployment of this one can."""
    cache_seconds: int = 0
    """For how long an answer may be given again though nobody asks for that; 0 leaves it to the request."""
    content_filter: bool = False
    tiers: Mapping[str, tuple[Tier, ...]] = field(init=False, repr=False, compare=False)
    """The deployments of each service, by priority: found once, because every decision needs them."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "tiers", _tiers(self.deployments))


@dataclass(frozen=True, slots=True)
class Price:
    """What one unit of each kind costs from a moment on, in Unix seconds."""

    id: str
    nano_credits: Mapping[str, int]
    effective_from: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the database holds: of everything where it is `whole`, else of what has changed."""

    whole: bool = False
    keys: Mapping[str, ApiKey] = field(default_factory=dict)
    accounts: Mapping[str, Account] = field(default_factory=dict)
    models: Mapping[str, Model] = field(default_factory=dict)
    prices: Mapping[str, tuple[Price, ...]] = field(default_factory=dict)
    """The prices of each model, the oldest first."""
    usable: Mapping[str, bool] = field(default_factory=dict)
    """Whether a deployment may take requests; one that is not named here may."""
    account_limits: Mapping[str, AccountLimits] = field(default_factory=dict)
    settled: Settlements | None = field(default_factory=dict)
    """What became of requests; None where any may have been settled."""


class State:
    """The latest that is known of everything, and what this replica has promised."""

    def __init__(self) -> None:
        self.loaded = False
        self.trusted_until = float("inf")
        """Unix seconds; past it, what is known is too old to decide by."""
        self.keys: dict[str, ApiKey] = {}
        self.accounts: dict[str, Account] = {}
        self.models: dict[str, Model] = {}
        self.prices: dict[str, tuple[Price, ...]] = {}
        self.usable: dict[str, bool] = {}
        self.account_limits: dict[str, AccountLimits] = {}
        self.purses: dict[tuple[str, str], Purse] = {}
        """By account and, where it has a budget, key."""
        self.holds = Holds()
        self.permits = Permits()
        self.loads = Loads()
        """By deployment."""

    def learn(self, snapshot: Snapshot) -> None:
        """Take over what a snapshot says; a whole one replaces all."""
        _learn(self.keys, _latest(self.keys, snapshot.keys), snapshot.whole)
        self.learn_balances(snapshot.accounts)
        _learn(self.models, snapshot.models, snapshot.whole)
        _learn(self.prices, snapshot.prices, snapshot.whole)
        _learn(self.usable, snapshot.usable, snapshot.whole)
        _learn(self.account_limits, snapshot.account_limits, snapshot.whole)
        self.loaded = self.loaded or snapshot.whole

    def learn_balances(self, accounts: Mapping[str, Account]) -> None:
        """Take over balances that are newer than those known: they come from the database and with leases."""
        for account_id, account in accounts.items():
            known = self.accounts.get(account_id)
            if known is None or known.version < account.version:
                self.accounts[account_id] = account

    def purse(self, account: str, key: str) -> Purse:
        """Give the purse of an account, or of a key of it that has a budget."""
        purse = self.purses.get((account, key))
        if purse is None:
            purse = self.purses[account, key] = Purse(account, key)
        return purse

    def price(self, model: str, now: float) -> Price | None:
        """Give the price of a model that is in force."""
        for price in reversed(self.prices.get(model, ())):
            if price.effective_from <= now:
                return price
        return None


def _tiers(deployments: Sequence[Deployment]) -> dict[str, tuple[Tier, ...]]:
    by_service: dict[str, list[Deployment]] = {}
    for deployment in sorted(deployments, key=_priority):
        by_service.setdefault(deployment.service, []).append(deployment)
    return {
        service: tuple(tuple(map(_place, equals)) for _, equals in groupby(ordered, _priority))
        for service, ordered in by_service.items()
    }


def _priority(deployment: Deployment) -> int:
    return deployment.priority


def _place(deployment: Deployment) -> Place:
    seed = int.from_bytes(blake2b(deployment.id.encode(), digest_size=8).digest(), "big")
    weight = float(max(0, deployment.weight))
    return Place(deployment.id, deployment, weight, 1 / weight if weight else 0.0, seed)


def _learn(known: dict[str, Fact], news: Mapping[str, Fact], whole: bool) -> None:
    if whole:
        known.clear()
    known.update(news)


def _latest(known: Mapping[str, ApiKey], news: Mapping[str, ApiKey]) -> dict[str, ApiKey]:
    """Give each key as it is newest: who changes one tells of it before the database does."""
    return {
        id: key if (other := known.get(id)) is None or other.version <= key.version else other
        for id, key in news.items()
    }
