"""What was used, and what it cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Charge:
    """What one request used and cost."""

    request_id: str
    account: str
    key: str
    model: str
    deployment: str
    operation: str
    quantities: Mapping[str, int]
    nano_credits: int
    estimated: bool
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class ModelUsage:
    """What was used of a model in some time."""

    model: str
    requests: int
    quantities: Mapping[str, int]
    nano_credits: int


@dataclass(frozen=True, slots=True)
class Totals:
    """What was used by all in some time."""

    requests: int
    tokens: int
    nano_credits: int
