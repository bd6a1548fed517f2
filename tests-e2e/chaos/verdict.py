"""The judgement on a run: a pure function of the facts."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from chaos.facts import Books, Facts, Transfer, UsageRow

PAYING = ("leased", "available", "written_off")
SWEEP_SECONDS = 30.0
"""What credits may take to notice that a lease has expired for good."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found, each with a line that says what."""

    calls: int
    acknowledged: int
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    overspent: tuple[str, ...]
    open_holds: tuple[str, ...]
    faults: tuple[str, ...]

    @property
    def is_clean(self) -> bool:
        """Tell whether nothing was found."""
        return not any((self.lost, self.doubled, self.overspent, self.open_holds, self.faults))

    def details(self) -> Iterator[str]:
        """Give a line for each thing found."""
        for kind in ("lost", "doubled", "overspent", "open_holds", "faults"):
            for line in getattr(self, kind):
                yield f"{kind}: {line}"

    def summary(self, kills: int) -> str:
        """Give the one line that a run ends with."""
        counts = {
            "kills": kills,
            "calls": self.calls,
            "acknowledged": self.acknowledged,
            "lost": len(self.lost),
            "doubled": len(self.doubled),
            "overspent": len(self.overspent),
            "open_holds": len(self.open_holds),
        }
        return "chaos: " + " ".join(f"{name}={count}" for name, count in counts.items())


def judge(facts: Facts) -> Verdict:
    """Compare what clients saw with what the books say."""
    return Verdict(
        calls=len(facts.calls),
        acknowledged=sum(call.acknowledged for call in facts.calls),
        lost=tuple(_lost(facts)),
        doubled=tuple(_doubled(facts)),
        overspent=tuple(_overspent(facts)),
        open_holds=tuple(_open(facts)),
        faults=tuple(facts.faults),
    )


def _lost(facts: Facts) -> Iterator[str]:
    rated = {row.request_id for row in facts.books.usage}
    for call in facts.calls:
        if call.acknowledged and call.request_id not in rated:
            yield f"{call.request_id} of {call.account} was answered whole and never charged"
    posted = _posted(facts.books.transfers)
    for row in facts.books.usage:
        if posted[row.account, row.request_id] < row.nano_credits:
            yield f"{row.request_id} cost {row.nano_credits}, the ledger has less"
    sums = facts.books.sums
    for account, cost in _rated(facts.books).items():
        for kind in sorted({kind for kind, _ in sums}):
            if (amount := sums.get((kind, account), 0)) < cost:
                yield f"{account} was charged {cost}, the sums by {kind} have {amount}"
    for name in facts.books.set_aside:
        yield f"{name} was set aside"


def _doubled(facts: Facts) -> Iterator[str]:
    usage = facts.books.usage
    for request_id, count in Counter(row.request_id for row in usage).items():
        if count > 1:
            yield f"{request_id} was rated {count} times"
    costs: Counter[tuple[str, str]] = Counter()
    for row in usage:
        costs[row.account, row.request_id] = row.nano_credits
    for (account, request_id), amount in _posted(facts.books.transfers).items():
        if amount > costs[account, request_id]:
            cost = costs[account, request_id]
            yield f"{request_id} of {account} cost {cost}, the ledger has {amount}"
    rated = _rated(facts.books)
    for (kind, account), amount in facts.books.sums.items():
        if amount > rated[account]:
            yield f"{account} was charged {rated[account]}, the sums by {kind} have {amount}"
    yield from _never_sent(facts)


def _never_sent(facts: Facts) -> Iterator[str]:
    """Find charges without a call: a call whose answer never began may stand for one that is not known."""
    known = {call.request_id: call for call in facts.calls if call.request_id}
    unanswered = Counter(
        (call.account, call.operation) for call in facts.calls if call.sent and not call.request_id
    )
    for row in facts.books.usage:
        call = known.get(row.request_id)
        if call is None:
            unanswered[row.account, row.operation] -= 1
            if unanswered[row.account, row.operation] < 0:
                yield f"{row.request_id} of {row.account} was charged and never sent"
        elif call.account != row.account or call.operation != row.operation:
            yield f"{row.request_id} of {call.account} was charged to {row.account} as {row.operation}"
        elif call.was_refused:
            yield f"{row.request_id} of {row.account} was refused with {call.status} and charged"


def _overspent(facts: Facts) -> Iterator[str]:
    books = facts.books
    totals = _totals(books.transfers)
    for account, granted in facts.granted.items():
        balance = books.balances.get(account)
        if balance is None:
            yield f"{account} is gone"
            continue
        if balance.available < 0 or balance.leased < 0:
            yield f"{account} has {balance.available} available and {balance.leased} leased"
        entries = totals[account]
        if -entries["issued"] != granted:
            yield f"{account} was granted {granted}, the ledger has {-entries['issued']}"
        if (entries["available"], entries["leased"]) != (balance.available, balance.leased):
            yield f"{account} has {balance}, the ledger {entries['available']} and {entries['leased']}"
        in_leases = sum(lease.left for lease in books.open_leases if lease.account == account)
        if in_leases != balance.leased:
            yield f"{account} has {balance.leased} leased, its open leases have {in_leases}"
        paid = sum(row.nano_credits - row.written_off for row in books.usage if row.account == account)
        if balance.available + balance.leased + paid != granted:
            yield f"{account} was granted {granted}: {balance} and {paid} spent are another sum"
    if books.ledger_sum:
        yield f"the ledger sums to {books.ledger_sum}"
    for row in books.usage:
        if row.written_off and not row.lease_was_swept:
            yield f"{row.request_id} of {row.account} could not pay {row.written_off} of {row.nano_credits}"


def _open(facts: Facts) -> Iterator[str]:
    for lease in facts.books.open_leases:
        if lease.seconds_past_expiry > facts.longest_request_seconds + SWEEP_SECONDS:
            yield f"{lease.id} of {lease.account} expired {lease.seconds_past_expiry:.0f} s ago"
    for number in range(facts.open_holds):
        yield f"hold {number + 1} of {facts.open_holds}"


def _posted(transfers: Iterable[Transfer]) -> Counter[tuple[str, str]]:
    """Sum what was charged, by account and request."""
    posted: Counter[tuple[str, str]] = Counter()
    for transfer in transfers:
        if transfer.credit == "revenue" and transfer.debit in PAYING:
            posted[transfer.account, transfer.reference] += transfer.nano_credits
    return posted


def _rated(books: Books) -> Counter[str]:
    """Sum what usage cost, by account."""
    rated: Counter[str] = Counter()
    for row in books.usage:
        rated[row.account] += row.nano_credits
    return rated


def _totals(transfers: Iterable[Transfer]) -> defaultdict[str, Counter[str]]:
    """Sum both sides of every transfer, by account and book."""
    totals: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for transfer in transfers:
        totals[transfer.account][transfer.debit] -= transfer.nano_credits
        totals[transfer.account][transfer.credit] += transfer.nano_credits
    return totals


def late(books: Books) -> list[UsageRow]:
    """Give the usage that came after its lease was given up and could not be paid in full."""
    return [row for row in books.usage if row.written_off and row.lease_was_swept]
