"""Public events, as an account sees them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

MAX_PAGE = 100
MAX_DATA_BYTES = 16 * 1024

_ACCOUNT = re.compile(r"[a-z0-9]{1,32}")
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_TYPE = re.compile(r"[a-z0-9_]{1,32}(\.[a-z0-9_]{1,32}){1,3}")


@dataclass(frozen=True, slots=True)
class NewEvent:
    """Something that an account should hear of."""

    id: str
    account_id: str
    type: str
    created_at: datetime
    data: Mapping[str, Any]

    def fault(self) -> str | None:
        """Name the first field that is not valid."""
        rules = {"account_id": _ACCOUNT, "id": _ID, "type": _TYPE}
        return next((name for name, rule in rules.items() if not rule.fullmatch(getattr(self, name))), None)


@dataclass(frozen=True, slots=True)
class PublicEvent(NewEvent):
    """An event in the log of its account."""

    sequence: int
    """Its position; rises by the order of arrival."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How many streams may be open at once in this process."""

    streams: int
    account_streams: int


def event_id(delivery_id: str) -> str:
    """Give the id of the event that a message is told as; the same at every redelivery."""
    return f"evt_{delivery_id.replace('-', '')}"
