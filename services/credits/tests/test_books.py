"""Any calls in any order leave what the simplest of models says, in memory and in the database."""

import asyncio
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from dozen_chassis.postgres import Database
from dozen_credits.domain import leases as domain
from dozen_credits.domain.leases import Budget, LeaseWish, Period
from dozen_credits.domain.ledger import Kind
from dozen_credits.domain.metering import Usage
from dozen_credits.domain.postings import PRIORITY, Posting
from dozen_credits.errors.accounts import InsufficientBalance
from dozen_credits.errors.metering import NothingToRefund, RequestNotFound

from .bank import UNIT_PRICE, Bank, MemoryBank, PostgresBank
from .memory import MemoryLeases, MemoryMetering

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

ACCOUNTS = ("acme", "other")
HOLDERS = ("gateway1", "gateway2")
BUDGETS = {"key1": Budget("key1", 150, Period.MONTH), "key2": Budget("key2", 120, Period.TOTAL)}
KEYS = (*BUDGETS, "key3")
accounts, holders, keys = st.sampled_from(ACCOUNTS), st.sampled_from(HOLDERS), st.sampled_from(KEYS)
A_MONTH_AGO = timedelta(days=31)
TOMORROW = datetime.now(UTC) + timedelta(days=1)


@dataclass
class Lot:
    """Credits that came in together."""

    order: tuple[int, int, int, int]
    """Priority; 0 once expired, 1 where it will, 2 where not; when; age. The least is spent first."""
    amount: int


@dataclass
class Account:
    """What an account has, was given, and has paid."""

    available: int = 0
    issued: int = 0
    paid: int = 0
    lots: dict[str, Lot] = field(default_factory=dict)

    def spend(self, amount: int) -> None:
        for lot in sorted(self.lots.values(), key=lambda lot: lot.order):
            amount -= (taken := min(amount, lot.amount))
            lot.amount -= taken
        assert amount == 0


@dataclass
class Lease:
    """A part of what an account has."""

    whose: tuple[str, str, str]
    """Account, holder and key."""
    left: int = 0
    is_open: bool = True


@dataclass
class Request:
    """A request that was charged."""

    usage: Usage
    cost: int
    from_lease: int
    written_off: int
    refunded: int = 0


class Books(RuleBasedStateMachine):
    """Calls everything that moves credits, and does the same in the simplest words."""

    leases: Bundle[str] = Bundle("leases")
    usages: Bundle[Usage] = Bundle("usages")
    grants: Bundle[str] = Bundle("grants")

    def __init__(self, bank: Bank, run: Run[Any]) -> None:
        super().__init__()
        self.bank, self.run = bank, run
        self.numbers = count(1)
        self.accounts = {name: Account() for name in ACCOUNTS}
        self.known: dict[str, Lease] = {}
        self.charged: dict[str, Request] = {}
        self.reported: set[str] = set()
        run(bank.clear())
        run(bank.metering.learn_price(UNIT_PRICE))
        for name in ACCOUNTS:
            run(bank.accounts.open(name, ""))

    @rule(
        target=grants,
        account_id=accounts,
        amount=st.integers(1, 400),
        priority=st.integers(0, 2),
        hours=st.none() | st.integers(1, 3),
    )
    def grant(self, account_id: str, amount: int, priority: int, hours: int | None) -> str:
        number = next(self.numbers)
        key = f"grant{number}"
        expires_at = TOMORROW + timedelta(hours=hours) if hours else None
        posting = Posting(Kind.GRANT, key, account_id, amount, "", expires_at=expires_at, priority=priority)
        for _ in range(2):
            self.run(self.bank.postings.grant(posting))
        self._issue(account_id, key, amount, (priority, 1 if hours else 2, hours or 0, number))
        return key

    @rule(account_id=accounts, amount=st.integers(-150, 100).filter(bool))
    def adjust(self, account_id: str, amount: int) -> None:
        number = next(self.numbers)
        account = self.accounts[account_id]
        adjust = self.bank.postings.adjust(
            Posting(Kind.ADJUSTMENT, f"adjust{number}", account_id, amount, "why", "who")
        )
        if account.available + amount < 0:
            with pytest.raises(InsufficientBalance):
                self.run(adjust)
            return
        self.run(adjust)
        if amount > 0:
            self._issue(account_id, f"adjust{number}", amount, (PRIORITY, 2, 0, number))
        else:
            account.spend(-amount)
            account.available += amount
            account.issued += amount

    @rule(account_id=accounts, key=grants)
    def let_grant_expire(self, account_id: str, key: str) -> None:
        if lot := self.accounts[account_id].lots.get(key):
            lot.order = (lot.order[0], 0, next(self.numbers), 0)
            self.run(self.bank.pass_by(account_id, key))
        self.run(self.bank.postings.expire())
        for account in self.accounts.values():
            expired = [lot for lot in account.lots.values() if lot.order[1] == 0]
            for lot in sorted(expired, key=lambda lot: lot.order):
                taken = min(lot.amount, account.available)
                lot.amount -= taken
                account.available -= taken
                account.issued -= taken

    @rule(
        target=leases,
        account_id=accounts,
        holder=holders,
        key_id=st.none() | st.sampled_from(sorted(BUDGETS)),
        needed=st.integers(0, 150),
        wanted=st.integers(0, 400),
        calls=st.integers(1, 2),
    )
    def acquire(
        self, account_id: str, holder: str, key_id: str | None, needed: int, wanted: int, calls: int
    ) -> str | MultipleResults[str]:
        account = self.accounts[account_id]
        there_is, budget_left = account.available, None
        budget = BUDGETS[key_id] if key_id else None
        if budget:
            left = sum(lease.left for lease in self._leases_of(account_id, budget.key_id))
            spent = sum(request.cost for request in self._requests_of(account_id, budget))
            budget_left = max(0, budget.nano_credits - left - spent)
            there_is = min(there_is, budget_left)
        amount = max(needed, min(wanted, there_is // 8)) if 0 < needed <= there_is else 0
        wish = LeaseWish(account_id, holder, needed, wanted, f"token{next(self.numbers)}", budget)
        acquired = [self.run(self.bank.leases.acquire(wish)) for _ in range(calls)][-1]
        assert acquired.added == amount
        if budget_left is not None:
            assert acquired.budget_left == budget_left - amount
        whose = (account_id, holder, key_id or "")
        had = [name for name, lease in self.known.items() if lease.is_open and lease.whose == whose]
        if acquired.lease is None:
            assert not had
            assert amount == 0
            return multiple()
        assert had in ([], [acquired.lease.id])
        lease = self.known.setdefault(acquired.lease.id, Lease(whose))
        lease.left += amount
        account.available -= amount
        return str(acquired.lease.id)

    @rule(lease_id=leases, held=st.just(0) | st.integers(0, 60))
    def release(self, lease_id: str, held: int) -> None:
        lease = self.known[lease_id]
        answer = self.run(self.bank.leases.release(lease_id, held))
        if lease.is_open and lease.left >= held:
            self.accounts[lease.whose[0]].available += lease.left - held
            lease.left, lease.is_open = held, held > 0
        assert (answer.left, answer.closed_at is None) == (lease.left, lease.is_open)

    @rule(lease_id=leases)
    def lose_the_holder(self, lease_id: str) -> None:
        self.run(self.bank.let_expire(lease_id))
        self.run(self.bank.leases.close_overdue())
        lease = self.known[lease_id]
        self.accounts[lease.whose[0]].available += lease.left
        lease.left, lease.is_open = 0, False

    @rule(
        target=usages,
        account_id=accounts,
        key_id=keys,
        cost=st.integers(0, 100),
        ago=st.sampled_from([timedelta(0), A_MONTH_AGO]),
    )
    def use(self, account_id: str, key_id: str, cost: int, ago: timedelta) -> Usage:
        return self._usage(account_id, key_id, cost, ago, "")

    @rule(target=usages, lease_id=leases, key_id=keys, cost=st.integers(0, 100))
    def use_lease(self, lease_id: str, key_id: str, cost: int) -> Usage:
        account_id, _, own_key = self.known[lease_id].whose
        return self._usage(account_id, own_key or key_id, cost, timedelta(0), lease_id)

    @rule(target=usages, lease_id=leases, account_id=accounts, key_id=keys, cost=st.integers(0, 100))
    def use_any_lease(self, lease_id: str, account_id: str, key_id: str, cost: int) -> Usage:
        return self._usage(account_id, key_id, cost, A_MONTH_AGO, lease_id)

    @rule(message=st.lists(usages, min_size=1, max_size=5), times=st.integers(1, 2))
    def deliver(self, message: Sequence[Usage], times: int) -> None:
        for attempt in range(times):
            self.run(self.bank.metering.charge(message, attempt + 1))
        for usage in message:
            if usage.request_id not in self.reported:
                self.reported.add(usage.request_id)
                self._charge(usage)

    @rule(usage=usages, amount=st.just(0) | st.integers(0, 60))
    def refund(self, usage: Usage, amount: int) -> None:
        number = next(self.numbers)
        refund = self.bank.postings.refund(
            usage.request_id, amount, idempotency_key=f"refund{number}", reason="why", actor="who"
        )
        request = self.charged.get(usage.request_id)
        if request is None:
            with pytest.raises(RequestNotFound):
                self.run(refund)
            return
        refundable = request.cost - request.written_off - request.refunded
        amount = amount or refundable
        if not 0 < amount <= refundable:
            with pytest.raises(NothingToRefund):
                self.run(refund)
            return
        assert self.run(refund).nano_credits == amount
        request.refunded += amount
        account = self.accounts[usage.account_id]
        account.paid -= amount
        account.issued -= amount  # what is refunded was issued before
        self._issue(usage.account_id, f"refund{number}", amount, (PRIORITY, 2, 0, number))

    @invariant()
    def books_agree(self) -> None:
        view = self.run(self.bank.view())
        view.check()
        for account_id, account in self.accounts.items():
            leased = sum(lease.left for lease in self.known.values() if lease.whose[0] == account_id)
            balance = view.balances[account_id]
            assert (balance.available, balance.leased) == (account.available, leased)
            assert account.available + leased + account.paid == account.issued
            assert sum(lot.amount for lot in account.lots.values()) == account.available + leased
            for budget in BUDGETS.values():
                left = sum(lease.left for lease in self._leases_of(account_id, budget.key_id))
                paid = sum(
                    request.from_lease
                    for request in self._requests_of(account_id, budget)
                    if request.from_lease and self.known[request.usage.lease_id].whose[2] == budget.key_id
                )
                assert paid + left <= budget.nano_credits
        leases = {lease.id: (lease.left, lease.closed_at is None) for lease in view.leases}
        assert leases == {name: (lease.left, lease.is_open) for name, lease in self.known.items()}
        charged = {name: (one.nano_credits, one.written_off, one.refunded) for name, one in view.charged}
        assert charged == {
            name: (request.cost, request.written_off, request.refunded)
            for name, request in self.charged.items()
        }

    def _usage(self, account_id: str, key_id: str, cost: int, ago: timedelta, lease_id: str) -> Usage:
        return Usage(
            request_id=f"req_{next(self.numbers)}",
            account_id=account_id,
            key_id=key_id,
            model="model1",
            deployment_id="deployment1",
            operation="POST /v1/chat/completions",
            price_id=UNIT_PRICE.id,
            quantities={"input_tokens": cost},
            finished_at=datetime.now(UTC) - ago,
            estimated=False,
            lease_id=lease_id,
        )

    def _charge(self, usage: Usage) -> None:
        cost = usage.quantities["input_tokens"]
        if cost == 0:
            return
        account = self.accounts[usage.account_id]
        from_lease = 0
        lease = self.known.get(usage.lease_id)
        if lease and lease.whose[0] == usage.account_id and lease.whose[2] in ("", usage.key_id):
            from_lease = min(cost, lease.left)
            lease.left -= from_lease
        from_available = min(cost - from_lease, account.available)
        account.available -= from_available
        account.spend(from_lease + from_available)
        account.paid += from_lease + from_available
        self.charged[usage.request_id] = Request(
            usage, cost, from_lease, written_off=cost - from_lease - from_available
        )

    def _issue(self, account_id: str, key: str, amount: int, order: tuple[int, int, int, int]) -> None:
        account = self.accounts[account_id]
        account.available += amount
        account.issued += amount
        account.lots[key] = Lot(order, amount)

    def _leases_of(self, account_id: str, key_id: str) -> Iterator[Lease]:
        for lease in self.known.values():
            if (lease.whose[0], lease.whose[2]) == (account_id, key_id):
                yield lease

    def _requests_of(self, account_id: str, budget: Budget) -> Iterator[Request]:
        now = datetime.now(UTC)
        for request in self.charged.values():
            usage = request.usage
            same_month = (usage.finished_at.year, usage.finished_at.month) == (now.year, now.month)
            if (usage.account_id, usage.key_id) == (account_id, budget.key_id) and (
                same_month or budget.period is Period.TOTAL
            ):
                yield request


def play(bank: Bank, run: Run[Any], examples: int, steps: int, **options: Any) -> None:
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        **options,
    )
    run_state_machine_as_test(lambda: Books(bank, run), settings=chosen)  # type: ignore[arg-type]


def test_books_in_memory_are_as_the_model_says() -> None:
    with asyncio.Runner() as runner:
        play(MemoryBank(), runner.run, examples=100, steps=40)


@pytest.mark.integration
def test_books_in_the_database_are_as_the_model_says(postgres_dsn: str) -> None:
    with asyncio.Runner() as runner:
        database = runner.run(Database.open(postgres_dsn))
        play(PostgresBank(database), runner.run, examples=12, steps=30)
        runner.run(database.close())


class ForgetsWhatIsCharged(MemoryMetering):
    async def claim(self, requests: Mapping[str, datetime]) -> set[str]:
        await super().claim(requests)
        return set(requests)


class CountsBudgetsLate(MemoryLeases):
    async def committed(self, account_id: str, budget: Budget) -> int:
        open_leases = (lease.left for lease in self.tables.leases.values() if lease.key_id == budget.key_id)
        return await super().committed(account_id, budget) - sum(open_leases)


class ForgetsWhatWentBack(MemoryLeases):
    async def give_back(self, amounts: Mapping[str, int]) -> dict[str, domain.Lease]:
        return {
            lease_id: replace(self.tables.leases[lease_id], closed_at=self.tables.now) for lease_id in amounts
        }


class KeepsSpendingClosedLeases(MemoryMetering):
    async def open_leases(self, ids: Collection[str]) -> dict[str, domain.Lease]:
        return {lease_id: replace(lease, returned=0) for lease_id, lease in self.tables.leases.items()}


@pytest.mark.parametrize(
    "bank",
    [
        MemoryBank(metering=ForgetsWhatIsCharged),
        MemoryBank(metering=KeepsSpendingClosedLeases),
        MemoryBank(leases=CountsBudgetsLate),
        MemoryBank(leases=ForgetsWhatWentBack),
    ],
    ids=["dedupe", "closed", "bound", "returned"],
)
def test_books_that_are_kept_wrongly_are_found_out(bank: Bank) -> None:
    with asyncio.Runner() as runner, pytest.raises(AssertionError):
        play(bank, runner.run, examples=1000, steps=40, phases=[Phase.generate])
