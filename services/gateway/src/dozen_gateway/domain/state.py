"""What a decision is made from, in memory."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from dozen_gateway.domain.keys import ApiKey

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


@dataclass(frozen=True, slots=True)
class Model:
    """A model of the catalogue."""

    id: str
    capabilities: frozenset[str]
    context_length: int
    """In tokens; 0 where there is no limit."""
    deployments: tuple[Deployment, ...]


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


class State:
    """The latest that is known of everything."""

    def __init__(self) -> None:
        self.loaded = False
        self.keys: dict[str, ApiKey] = {}
        self.accounts: dict[str, Account] = {}
        self.models: dict[str, Model] = {}
        self.prices: dict[str, tuple[Price, ...]] = {}
        self.usable: dict[str, bool] = {}

    def learn(self, snapshot: Snapshot) -> None:
        """Take over what a snapshot says; a whole one replaces all."""
        _learn(self.keys, snapshot.keys, snapshot.whole)
        _learn(self.accounts, snapshot.accounts, snapshot.whole)
        _learn(self.models, snapshot.models, snapshot.whole)
        _learn(self.prices, snapshot.prices, snapshot.whole)
        _learn(self.usable, snapshot.usable, snapshot.whole)
        self.loaded = self.loaded or snapshot.whole

    def price(self, model: str, now: float) -> Price | None:
        """Give the price of a model that is in force."""
        prices = self.prices.get(model, ())
        return next((price for price in reversed(prices) if price.effective_from <= now), None)


def _learn(known: dict[str, Fact], news: Mapping[str, Fact], whole: bool) -> None:
    if whole:
        known.clear()
    known.update(news)
