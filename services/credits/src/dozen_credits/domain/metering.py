"""Prices and usage, and the rules by which usage is charged."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from dozen_credits.domain.accounts import LARGEST_AMOUNT, is_account_id, is_text

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}\Z")
_UNIT = re.compile(r"[a-z][a-z0-9_]{0,39}\Z")
_LONGEST_TEXT = 256
_MOST_UNITS = 32
_LARGEST_QUANTITY = 10**15
_FREE = {"cache_hits"}
"""Units that nothing is missing for where they have no price."""


@dataclass(frozen=True, slots=True)
class Price:
    """Nano-credits for one of each unit."""

    id: str
    model_id: str
    nano_credits: Mapping[str, int]
    effective_from: datetime


@dataclass(frozen=True, slots=True)
class Usage:
    """What one request used."""

    request_id: str
    account_id: str
    key_id: str
    model: str
    deployment_id: str
    operation: str
    price_id: str
    quantities: Mapping[str, int]
    finished_at: datetime
    estimated: bool
    lease_id: str = ""
    """The lease that the request was held in."""

    @property
    def is_nothing(self) -> bool:
        """True where nothing was used, as of a request that failed."""
        return not any(self.quantities.values())

    @property
    def names_a_price(self) -> bool:
        """True where its price is one that the database can be asked for."""
        return is_text(self.price_id, _LONGEST_TEXT)

    def is_well_formed(self) -> bool:
        """Tell whether everything is within limits; what is not can be neither kept nor charged."""
        for text in (self.key_id, self.model, self.deployment_id, self.operation, self.lease_id):
            if not is_text(text, _LONGEST_TEXT):
                return False
        for unit, quantity in self.quantities.items():
            if not 0 <= quantity <= _LARGEST_QUANTITY or not _UNIT.match(unit):
                return False
        return (
            self.names_a_price
            and is_request_id(self.request_id)
            and is_account_id(self.account_id)
            and len(self.quantities) <= _MOST_UNITS
        )


@dataclass(frozen=True, slots=True)
class Charge:
    """Usage with what it costs."""

    usage: Usage
    nano_credits: int
    unpriced: tuple[str, ...] = ()
    """Units that the price does not have; they cost nothing."""


class Reason(StrEnum):
    """Why usage cannot be charged."""

    ILL_FORMED = "ill_formed"
    UNKNOWN_ACCOUNT = "unknown_account"
    UNKNOWN_PRICE = "unknown_price"
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True)
class Unrated:
    """Usage that cannot be charged."""

    usage: Usage
    reason: Reason


def is_request_id(text: str) -> bool:
    """Tell whether a text can be the id of a request."""
    return _REQUEST_ID.match(text) is not None


def storable_id(text: str) -> str:
    """Give a request id that the database can keep, whatever was reported as one."""
    return text if is_request_id(text) else ascii(text)[:_LONGEST_TEXT]


def rate(usage: Usage, price: Price | None) -> Charge | Unrated:
    """Give what usage costs, or why it cannot be said; the amounts of all units add up."""
    if not usage.is_well_formed():
        return Unrated(usage, Reason.ILL_FORMED)
    if usage.is_nothing:
        return Charge(usage, 0)
    if price is None:
        return Unrated(usage, Reason.UNKNOWN_PRICE)
    costs = price.nano_credits
    amount = sum([quantity * costs.get(unit, 0) for unit, quantity in usage.quantities.items()])
    if amount > LARGEST_AMOUNT:
        return Unrated(usage, Reason.TOO_LARGE)
    unpriced = [
        unit
        for unit, quantity in usage.quantities.items()
        if quantity and unit not in costs and unit not in _FREE
    ]
    return Charge(usage, amount, tuple(sorted(unpriced)))
