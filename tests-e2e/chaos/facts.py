"""What is known after a run: what clients saw, and what the books say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as its client saw it."""

    account: str
    operation: str
    """Method and path, such as `POST /v1/embeddings`."""
    request_id: str = ""
    """Empty where no answer began."""
    status: int = 0
    acknowledged: bool = False
    """The answer was a success, and came whole."""
    sent: bool = True
    """False where the platform took no connection."""

    @property
    def was_refused(self) -> bool:
        """Tell whether the platform said that it would not do it."""
        return 400 <= self.status < 500


@dataclass(frozen=True, slots=True)
class UsageRow:
    """A rated request."""

    request_id: str
    account: str
    operation: str
    nano_credits: int
    written_off: int = 0
    lease_was_swept: bool = False
    """Reported so late that its lease had been given up: what it cost may be gone."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A row of the ledger."""

    account: str
    debit: str
    credit: str
    nano_credits: int
    reference: str


@dataclass(frozen=True, slots=True)
class Balance:
    """An account, as credits keeps it."""

    available: int
    leased: int


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease that is not closed."""

    id: str
    account: str
    left: int
    seconds_past_expiry: float
    """Below zero while it lasts."""


@dataclass(frozen=True, slots=True)
class Books:
    """What the databases say of the accounts of a run."""

    balances: Mapping[str, Balance]
    transfers: Sequence[Transfer] = ()
    usage: Sequence[UsageRow] = ()
    open_leases: Sequence[Lease] = ()
    sums: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """What each kind of sums (of hours, of keys, of invoices …) says that each account was charged."""
    ledger_sum: int = 0
    """Of all entries of all accounts."""
    set_aside: Sequence[str] = ()
    """Ids of requests or events that could not be handled."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a verdict is made from."""

    granted: Mapping[str, int]
    """What each account was given."""
    calls: Sequence[Call]
    books: Books
    open_holds: int
    longest_request_seconds: float = 0.0
    faults: Sequence[str] = field(default_factory=list)
    """What went wrong besides: a process that ended by itself, a queue that did not empty."""
