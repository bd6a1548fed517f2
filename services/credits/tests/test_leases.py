"""Leases on a real database: never more than there is, closed once, and paid from as a simple model says."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from dozen_chassis.postgres import Database
from dozen_credits.domain.leases import Budget, Lease, LeaseWish, Period, addition
from dozen_credits.domain.ledger import Kind
from dozen_credits.domain.metering import Price, Usage
from dozen_credits.domain.postings import Posting
from dozen_credits.errors.accounts import AccountNotFound
from dozen_credits.errors.leases import InvalidLease, LeaseNotFound
from dozen_credits.repository.accounts import AccountsRepository
from dozen_credits.repository.leases import LeasesRepository
from dozen_credits.repository.metering import MeteringRepository
from dozen_credits.repository.postings import PostingsRepository
from dozen_credits.service.accounts import Accounts
from dozen_credits.service.leases import Acquired, Leases
from dozen_credits.service.metering import Metering
from dozen_credits.service.postings import Postings

pytestmark = pytest.mark.integration

MakeUsage = Callable[..., Usage]
Check = Callable[[], Awaitable[None]]
GRACE = timedelta(minutes=20)


@pytest.mark.parametrize(
    ("available", "needed", "wanted", "given"),
    [
        (800, 10, 1000, 100),
        (800, 10, 50, 50),
        (800, 300, 1000, 300),
        (800, 800, 0, 800),
        (800, 801, 900, 0),
        (800, 0, 1000, 0),
        (7, 1, 1000, 1),
        (0, 1, 1, 0),
    ],
)
def test_a_holder_gets_what_it_needs_and_otherwise_a_share(
    available: int, needed: int, wanted: int, given: int
) -> None:
    assert addition(available, needed, wanted) == given


class Bank:
    """The use cases on one database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.accounts = Accounts(AccountsRepository(database))
        self.leases = Leases(
            LeasesRepository(database), lifetime=timedelta(seconds=60), longest_request=GRACE
        )
        self.metering = Metering(MeteringRepository(database), price_attempts=5, low_balance=0)
        self.postings = Postings(PostingsRepository(database), low_balance=0)
        self._tokens = iter(range(10**6))

    async def open(self, account_id: str, nano_credits: int) -> None:
        await self.accounts.open(account_id, "")
        await self.postings.grant(Posting(Kind.GRANT, account_id, account_id, nano_credits, ""))

    async def acquire(
        self, holder: str, needed: int, wanted: int = 0, *, account: str = "acme", token: str | None = None
    ) -> Lease | None:
        wish = LeaseWish(account, holder, needed, wanted, token or f"token{next(self._tokens)}")
        return (await self.leases.acquire(wish)).lease

    async def acquired(self, holder: str, needed: int) -> Lease:
        lease = await self.acquire(holder, needed)
        assert lease is not None
        return lease

    async def acquire_for(self, budget: Budget, holder: str, needed: int, wanted: int = 0) -> Acquired:
        wish = LeaseWish("acme", holder, needed, wanted, f"token{next(self._tokens)}", budget)
        return await self.leases.acquire(wish)

    async def balance(self, account_id: str = "acme") -> tuple[int, int]:
        balance = (await self.accounts.get(account_id)).balance
        return balance.available, balance.leased

    async def expire(self, lease_id: str, ago: timedelta) -> None:
        await self.database.pool.execute(
            "update leases set expires_at = now() - $2::interval where id = $1", lease_id, ago
        )

    async def written_off(self) -> int:
        total: int = await self.database.pool.fetchval(
            "select coalesce(sum(written_off), 0)::bigint from usage"
        )
        return total


@pytest.fixture
async def bank(database: Database) -> Bank:
    """Keeps 1,000 nano-credits of `acme`; an input token costs one."""
    bank = Bank(database)
    await bank.open("acme", 1000)
    return bank


@pytest.fixture
async def unit_price(bank: Bank, price: Price) -> None:
    await bank.metering.learn_price(replace(price, nano_credits={"input_tokens": 1}))


async def test_a_lease_is_opened_extended_and_renewed(bank: Bank, assert_books_agree: Check) -> None:
    first = await bank.acquired("gateway1", 100)
    assert (first.nano_credits, first.spent, first.returned, first.closed_at) == (100, 0, 0, None)
    assert first.id.startswith("lease_")
    extended = await bank.acquire("gateway1", 50, 1000)
    assert extended is not None
    assert (extended.id, extended.nano_credits) == (first.id, 100 + 900 // 8)
    other = await bank.acquired("gateway2", 5)
    assert other.id != first.id
    versions = (await bank.accounts.get("acme")).balance.version
    assert await bank.balance() == (1000 - 212 - 5, 217)
    await bank.expire(first.id, timedelta(minutes=1))
    renewed = await bank.acquire("gateway1", 0, 1000)
    assert renewed is not None
    assert renewed.expires_at > extended.expires_at
    assert (renewed.nano_credits, (await bank.accounts.get("acme")).balance.version) == (212, versions)
    assert await bank.acquire("gateway3", 0) is None
    await assert_books_agree()


async def test_who_needs_more_than_there_is_gets_nothing_more(bank: Bank) -> None:
    lease = await bank.acquired("gateway1", 990)
    await bank.expire(lease.id, timedelta(0))
    answer = await bank.leases.acquire(LeaseWish("acme", "gateway1", 11, 100, "token"))
    assert answer.lease is not None
    assert (answer.lease.nano_credits, answer.added, answer.balance.available) == (990, 0, 10)
    assert answer.lease.expires_at > lease.expires_at  # it is renewed all the same
    answer = await bank.leases.acquire(LeaseWish("acme", "gateway2", 11, 100, "token"))
    assert (answer.lease, answer.added, answer.balance.available) == (None, 0, 10)


async def test_a_repeated_call_adds_nothing_more(bank: Bank, assert_books_agree: Check) -> None:
    wish = LeaseWish("acme", "gateway1", 10, 0, "token")
    answers = await asyncio.gather(*(bank.leases.acquire(wish) for _ in range(6)))
    assert {(answer.lease.id, answer.added) for answer in answers if answer.lease} == {
        (answers[0].lease.id if answers[0].lease else "", 10)
    }
    assert await bank.balance() == (990, 10)
    await bank.acquire("gateway2", 10, token="token")  # another holder's tokens are its own
    assert await bank.balance() == (980, 20)
    assert answers[0].lease is not None
    await bank.leases.release(answers[0].lease.id, 0)
    late = await bank.leases.acquire(wish)
    assert (late.lease, late.added) == (None, 0)
    await assert_books_agree()


async def test_a_key_has_leases_of_its_own_within_its_budget(
    bank: Bank, unit_price: None, make_usage: MakeUsage, assert_books_agree: Check
) -> None:
    budget = Budget("key1", 100, Period.TOTAL)
    of_account = await bank.acquired("gateway1", 10)
    first = await bank.acquire_for(budget, "gateway1", 40)
    assert first.lease is not None
    assert first.lease.id != of_account.id
    assert (first.lease.key_id, first.added, first.budget_left) == ("key1", 40, 60)
    second = await bank.acquire_for(budget, "gateway2", 20, 1000)
    assert (second.added, second.budget_left) == (20, 40)  # an eighth of what is left is less
    more = await bank.acquire_for(budget, "gateway1", 1, 1000)
    assert more.lease is not None
    assert (more.lease.id, more.added, more.budget_left) == (first.lease.id, 5, 35)
    for needed in (36, 1000):
        none = await bank.acquire_for(budget, "gateway1", needed, 1000)
        assert (none.lease and none.lease.id, none.added, none.budget_left) == (first.lease.id, 0, 35)
    none = await bank.acquire_for(budget, "gateway3", 36)
    assert (none.lease, none.added, none.budget_left) == (None, 0, 35)

    tokens = {"input_tokens": 30}
    await bank.metering.charge([make_usage("req_1", quantities=tokens, lease_id=first.lease.id)], 1)
    assert (await bank.acquire_for(budget, "gateway1", 0)).budget_left == 35  # it moved within the budget
    await bank.metering.charge([make_usage("req_2", quantities=tokens, lease_id=of_account.id)], 1)
    assert (await bank.acquire_for(budget, "gateway1", 0)).budget_left == 5  # its other charges count too
    await bank.metering.charge([make_usage("req_3", quantities=tokens, key_id="key2")], 1)
    await bank.leases.release(first.lease.id, 0)
    assert (await bank.acquire_for(budget, "gateway1", 0)).budget_left == 20
    refund = {"idempotency_key": "refund", "reason": "bad answer", "actor": "alice"}
    await bank.postings.refund("req_1", 0, **refund)
    assert (await bank.acquire_for(budget, "gateway1", 0)).budget_left == 20  # refunds do not give it back
    smaller = replace(budget, nano_credits=50)
    assert (await bank.acquire_for(smaller, "gateway1", 1)).budget_left == 0
    assert (await bank.acquire_for(replace(budget, key_id="key3"), "gateway1", 100)).added == 100
    await assert_books_agree()


async def test_a_monthly_budget_starts_anew_each_month(
    bank: Bank, unit_price: None, make_usage: MakeUsage
) -> None:
    now = datetime.now(UTC)
    first = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for number, time in enumerate(
        [now, first, first - timedelta(microseconds=1), first - timedelta(days=40)]
    ):
        usage = make_usage(f"req_{number}", quantities={"input_tokens": 10**number}, finished_at=time)
        await bank.metering.charge([usage], 1)
    left = {
        period: (await bank.acquire_for(Budget("key1", 10_000, period), "gateway1", 0)).budget_left
        for period in Period
    }
    assert left == {Period.MONTH: 10_000 - 11, Period.TOTAL: 10_000 - 1111}


async def test_a_lease_of_a_key_pays_only_for_this_key(
    bank: Bank, unit_price: None, make_usage: MakeUsage, assert_books_agree: Check
) -> None:
    lease = (await bank.acquire_for(Budget("key1", 100, Period.TOTAL), "gateway1", 50)).lease
    assert lease is not None
    other = make_usage("req_1", quantities={"input_tokens": 20}, key_id="key2", lease_id=lease.id)
    await bank.metering.charge([other], 1)
    assert await bank.balance() == (930, 50)
    await bank.metering.charge([replace(other, request_id="req_2", key_id="key1")], 1)
    assert await bank.balance() == (930, 30)
    await assert_books_agree()


async def test_of_one_budget_concurrent_holders_get_exactly_all(
    bank: Bank, unit_price: None, make_usage: MakeUsage, assert_books_agree: Check
) -> None:
    """A budget for 20 calls, 200 calls over 4 holders; half of those admitted are charged meanwhile."""
    budget = Budget("key1", 20 * 7, Period.MONTH)

    async def call(number: int) -> int:
        acquired = await bank.acquire_for(budget, f"gateway{number % 4}", 7)
        if acquired.added and number % 2:
            assert acquired.lease is not None
            usage = make_usage(f"req_{number}", quantities={"input_tokens": 7}, lease_id=acquired.lease.id)
            await bank.metering.charge([replace(usage, finished_at=datetime.now(UTC))], 1)
        return acquired.added

    async with asyncio.timeout(60):
        added = await asyncio.gather(*(call(number) for number in range(200)))
    assert sorted(added, reverse=True) == [7] * 20 + [0] * 180
    await assert_books_agree()


async def test_who_returns_what_is_free_gets_it_again_with_what_others_returned(
    bank: Bank, unit_price: None, make_usage: MakeUsage, assert_books_agree: Check
) -> None:
    """Two holders share all there is; each has too little for one more call, together they have enough."""
    mine, theirs = await bank.acquired("gateway1", 600), await bank.acquired("gateway2", 400)
    needed = 300  # mine holds 400 for requests, theirs 300
    assert (await bank.leases.acquire(LeaseWish("acme", "gateway1", needed, 0, "token"))).added == 0
    kept = await bank.leases.release(mine.id, 400)
    assert (kept.left, kept.closed_at) == (400, None)
    assert (await bank.leases.acquire(LeaseWish("acme", "gateway1", needed, 0, "token"))).added == 0
    await bank.leases.release(theirs.id, 300)
    acquired = await bank.leases.acquire(LeaseWish("acme", "gateway1", needed, 0, "token"))
    assert acquired.lease is not None
    assert (acquired.added, acquired.lease.id, acquired.lease.left) == (300, mine.id, 700)
    assert await bank.balance() == (0, 1000)
    usages = [
        make_usage(f"req_{lease.id}", quantities={"input_tokens": tokens}, lease_id=lease.id)
        for lease, tokens in ((mine, 700), (theirs, 300))
    ]
    await bank.metering.charge(usages, 1)
    assert await bank.balance() == (0, 0)
    assert await bank.written_off() == 0
    await assert_books_agree()


async def test_a_released_lease_keeps_what_is_held_and_closes_once_empty(
    bank: Bank, unit_price: None, make_usage: MakeUsage, assert_books_agree: Check
) -> None:
    lease = await bank.acquired("gateway1", 100)
    held = await bank.leases.release(lease.id, 30)
    assert (held.returned, held.left, held.closed_at) == (70, 30, None)
    assert await bank.leases.release(lease.id, 30) == held
    assert await bank.leases.release(lease.id, 40) == held
    assert await bank.balance() == (970, 30)
    await bank.metering.charge([make_usage("req_1", quantities={"input_tokens": 20}, lease_id=lease.id)], 1)
    closed = await bank.leases.release(lease.id, 0)
    assert (closed.spent, closed.returned, closed.left) == (20, 80, 0)
    assert closed.closed_at is not None
    assert await bank.leases.release(lease.id, 0) == closed
    assert await bank.balance() == (980, 0)
    assert (await bank.acquired("gateway1", 1)).id != lease.id
    await assert_books_agree()


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"holder": ""}, InvalidLease),
        ({"holder": "h" * 129}, InvalidLease),
        ({"request_token": ""}, InvalidLease),
        ({"needed": -1}, InvalidLease),
        ({"needed": 10**15 + 1}, InvalidLease),
        ({"wanted": -1}, InvalidLease),
        ({"budget": Budget("", 1, Period.MONTH)}, InvalidLease),
        ({"budget": Budget("k" * 129, 1, Period.MONTH)}, InvalidLease),
        ({"budget": Budget("\0", 1, Period.MONTH)}, InvalidLease),
        ({"budget": Budget("key1", -1, Period.MONTH)}, InvalidLease),
        ({"account_id": "nobody"}, AccountNotFound),
        ({"account_id": "\0"}, AccountNotFound),
    ],
)
async def test_a_senseless_call_is_refused(
    bank: Bank, changes: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await bank.leases.acquire(replace(LeaseWish("acme", "gateway1", 1, 1, "token"), **changes))  # type: ignore[arg-type]
    with pytest.raises(LeaseNotFound):
        await bank.leases.release("lease_\0", 0)
    with pytest.raises(InvalidLease):
        await bank.leases.release("lease_1", -1)
    assert await bank.balance() == (1000, 0)


async def test_of_one_balance_concurrent_holders_get_exactly_all(
    bank: Bank, assert_books_agree: Check
) -> None:
    async def take(number: int) -> int:
        wish = LeaseWish("acme", f"gateway{number % 5}", 7, 0, f"token{number}")
        return (await bank.leases.acquire(wish)).added

    async with asyncio.timeout(60):
        added = await asyncio.gather(*(take(number) for number in range(300)))
    assert sorted(added, reverse=True) == [7] * (1000 // 7) + [0] * (300 - 1000 // 7)
    assert await bank.balance() == (1000 % 7, 1000 - 1000 % 7)
    assert await bank.database.pool.fetchval("select count(*) from leases") == 5
    await assert_books_agree()


async def test_a_balance_for_so_many_calls_pays_exactly_them(
    bank: Bank, unit_price: None, make_usage: MakeUsage, assert_books_agree: Check
) -> None:
    """A balance for 40 calls, 400 calls over 5 holders: each holds 25 before it runs, and costs 25."""
    admitted: list[Usage] = []

    async def call(number: int) -> None:
        wish = LeaseWish("acme", f"gateway{number % 5}", 25, 0, f"token{number}")
        answer = await bank.leases.acquire(wish)
        if answer.lease and answer.added:
            usage = make_usage(f"req_{number}", quantities={"input_tokens": 25}, lease_id=answer.lease.id)
            admitted.append(usage)
            await bank.metering.charge([usage], 1)

    async with asyncio.timeout(60):
        await asyncio.gather(*(call(number) for number in range(400)))
    assert len(admitted) == 40
    assert await bank.balance() == (0, 0)
    assert await bank.written_off() == 0
    await assert_books_agree()


async def test_a_lease_pays_then_the_balance_then_nobody(
    bank: Bank, unit_price: None, make_usage: MakeUsage, assert_books_agree: Check
) -> None:
    await bank.open("other", 50)
    lease = await bank.acquired("gateway1", 100)

    async def charge(request_id: str, tokens: int, **changes: object) -> tuple[int, int, int]:
        usage = make_usage(request_id, quantities={"input_tokens": tokens}, **changes)
        await bank.metering.charge([usage, usage], 1)
        return (*await bank.balance(), await bank.written_off())

    assert await charge("req_1", 60, lease_id=lease.id) == (900, 40, 0)
    assert await charge("req_2", 60, lease_id=lease.id) == (880, 0, 0)
    assert await charge("req_3", 10, lease_id="lease_unknown") == (870, 0, 0)
    await bank.acquire("gateway1", 70)
    assert await charge("req_4", 80, account_id="other", lease_id=lease.id) == (800, 70, 30)
    assert await bank.balance("other") == (0, 0)
    assert await charge("req_5", 900) == (0, 70, 130)
    assert await charge("req_6", 100, lease_id=lease.id) == (0, 0, 160)
    with pytest.raises(asyncpg.CheckViolationError):
        await bank.database.pool.execute("update leases set spent = spent + 1")
    await assert_books_agree()


async def test_an_expired_lease_waits_for_its_requests_and_is_then_closed_once(
    bank: Bank, unit_price: None, make_usage: MakeUsage, assert_books_agree: Check
) -> None:
    leases = [await bank.acquired(f"gateway{number}", 10) for number in range(20)]
    for lease in leases[:15]:
        await bank.expire(lease.id, GRACE + timedelta(seconds=5))
    await bank.expire(leases[15].id, GRACE - timedelta(seconds=60))
    late = make_usage("req_1", quantities={"input_tokens": 4}, lease_id=leases[15].id)
    async with asyncio.timeout(60):
        await asyncio.gather(
            *(bank.leases.close_overdue() for _ in range(4)), bank.metering.charge([late], 1)
        )
    assert await bank.balance() == (1000 - 200 + 150, 46)
    assert await bank.database.pool.fetchval("select count(*) from transfers where kind = 'release'") == 15
    closed = make_usage("req_2", quantities={"input_tokens": 5}, lease_id=leases[0].id)
    await bank.metering.charge([closed], 1)
    assert await bank.balance() == (945, 46)
    with pytest.raises(asyncpg.UniqueViolationError):
        await bank.database.pool.execute("update leases set holder = 'gateway19' where closed_at is null")
    await assert_books_agree()


async def test_a_renewal_and_the_sweeper_do_not_cross(bank: Bank, assert_books_agree: Check) -> None:
    async with asyncio.timeout(60):
        for _ in range(20):
            lease = await bank.acquired("gateway1", 10)
            await bank.expire(lease.id, GRACE * 2)
            renewed, *_ = await asyncio.gather(
                bank.acquired("gateway1", 1), bank.leases.close_overdue(), bank.leases.close_overdue()
            )
            available, leased = await bank.balance()
            assert (renewed.id == lease.id) == (leased > 1)
            assert (available + leased, leased) == (1000, renewed.left)
    await assert_books_agree()


async def test_what_is_long_past_is_forgotten(bank: Bank) -> None:
    old, young = await bank.acquired("gateway1", 10), await bank.acquired("gateway2", 10)
    for lease in (old, young):
        await bank.leases.release(lease.id, 0)
    await bank.database.pool.execute(
        "update lease_extensions set created_at = now() - interval '2 days' where lease_id = $1", old.id
    )
    await bank.database.pool.execute(
        "update leases set closed_at = now() - interval '91 days' where id = $1", old.id
    )
    await bank.leases.close_overdue()
    assert await bank.database.pool.fetchval("select array_agg(id) from leases") == [young.id]
    assert await bank.database.pool.fetchval("select array_agg(lease_id) from lease_extensions") == [young.id]


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_many_at_once_keep_the_books_whatever_the_order(
    bank: Bank, unit_price: None, make_usage: MakeUsage, assert_books_agree: Check, seed: int
) -> None:
    dice = random.Random(seed)
    names = [f"account{number}" for number in range(4)]
    for name in names:
        await bank.open(name, 600)
    held: list[Lease] = []

    async def work(number: int) -> None:
        name = dice.choice(names)
        lease = await bank.acquire(f"gateway{number % 3}", dice.randrange(1, 90), account=name)
        usages = [
            make_usage(
                f"req_{dice.randrange(80)}",
                account_id=dice.choice(names),
                quantities={"input_tokens": dice.randrange(40)},
                lease_id=lease.id if lease and dice.random() < 0.7 else "",
            )
            for _ in range(4)
        ]
        await bank.metering.charge(usages, 1)
        if lease:
            held.append(lease)
        if number % 4 == 0 and held:
            await bank.expire(dice.choice(held).id, GRACE * 2)
            await bank.leases.close_overdue()
        if number % 5 == 0 and held:
            await bank.leases.release(dice.choice(held).id, dice.randrange(20))

    async with asyncio.timeout(60):
        await asyncio.gather(*(work(number) for number in range(60)))
    await assert_books_agree()
