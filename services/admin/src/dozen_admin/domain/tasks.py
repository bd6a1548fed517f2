"""Tasks that have finished."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Task:
    """A task in its final state: `succeeded`, `failed` or `cancelled`."""

    id: str
    account: str
    type: str
    state: str
    error: str
    finished_at: datetime
