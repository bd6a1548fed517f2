"""The ledger on a real database: exact, balanced and free of deadlocks, whatever is delivered how often."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from google.protobuf.message import Message

from dozen_chassis.errors import TRANSIENT
from dozen_chassis.postgres import Database
from dozen_credits.domain.ledger import Kind
from dozen_credits.domain.metering import Price, Usage
from dozen_credits.domain.postings import Posting
from dozen_credits.domain.usage import Place, UsageQuery
from dozen_credits.errors.accounts import IdempotencyKeyReused
from dozen_credits.errors.ledger import LedgerUnavailable
from dozen_credits.errors.usage import InvalidPeriod, UnknownCursor
from dozen_credits.repository.accounts import AccountsRepository
from dozen_credits.repository.metering import MeteringRepository
from dozen_credits.repository.postings import PostingsRepository
from dozen_credits.repository.usage import UsageRepository
from dozen_credits.service.accounts import Accounts
from dozen_credits.service.metering import Metering
from dozen_credits.service.postings import Postings
from dozen_credits.service.usage import UsageReports

pytestmark = pytest.mark.integration

MakeUsage = Callable[..., Usage]
Check = Callable[[], Awaitable[None]]
GRANTED = 10_000_000
NOON = datetime(2026, 10, 5, 12, 0, tzinfo=UTC)


@pytest.fixture
async def metering(database: Database, price: Price) -> Metering:
    """Charges 20 accounts, each with credits."""
    accounts = Accounts(AccountsRepository(database))
    postings = Postings(PostingsRepository(database), low_balance=0)
    for name in ("acme", *(f"account{number}" for number in range(20))):
        await accounts.open(name, "")
        await postings.grant(Posting(Kind.GRANT, name, name, GRANTED, ""))
    metering = Metering(MeteringRepository(database), price_attempts=5, low_balance=0)
    await metering.learn_price(price)
    return metering


@pytest.fixture
def reports(database: Database) -> UsageReports:
    return UsageReports(UsageRepository(database))


async def balances(database: Database) -> dict[str, int]:
    rows = await database.pool.fetch("select id, available from accounts")
    return {row["id"]: row["available"] for row in rows}


def messages(make_usage: MakeUsage, seed: int, count: int, size: int) -> list[list[Usage]]:
    """Make usage of random accounts and amounts; a tenth of the records are in several messages."""
    dice = random.Random(seed)
    usages = [
        make_usage(
            f"req_{number}",
            account_id=f"account{dice.randrange(20)}",
            key_id=f"key{dice.randrange(3)}",
            quantities={"input_tokens": dice.randrange(1000), "output_tokens": dice.randrange(1000)},
            finished_at=NOON + timedelta(minutes=dice.randrange(24 * 60)),
        )
        for number in range(count * size)
    ]
    packed = [usages[start : start + size] for start in range(0, len(usages), size)]
    for message in packed:
        message += dice.sample(usages, size // 10)
        dice.shuffle(message)
    return packed


def expected(packed: list[list[Usage]]) -> dict[str, int]:
    spent: Counter[str] = Counter()
    for usage in {usage.request_id: usage for message in packed for usage in message}.values():
        spent[usage.account_id] += (
            2 * usage.quantities["input_tokens"] + 5 * usage.quantities["output_tokens"]
        )
    return {f"account{number}": GRANTED - spent[f"account{number}"] for number in range(20)} | {
        "acme": GRANTED
    }


async def test_concurrent_consumers_neither_deadlock_nor_charge_twice(
    database: Database, assert_books_agree: Check, metering: Metering, make_usage: MakeUsage
) -> None:
    packed = messages(make_usage, seed=4, count=30, size=30)

    async def consume(number: int) -> None:
        delivered = packed.copy()
        random.Random(number).shuffle(delivered)
        for message in delivered:
            await metering.charge(message, 1)

    async with asyncio.timeout(60):
        await asyncio.gather(*(consume(number) for number in range(4)))
    assert await balances(database) == expected(packed)
    await assert_books_agree()
    versions = await database.pool.fetch("select version from accounts where id <> 'acme'")
    assert all(row["version"] <= 2 + len(packed) for row in versions)


async def test_grants_and_charges_at_once_keep_the_books(
    database: Database, assert_books_agree: Check, metering: Metering, make_usage: MakeUsage
) -> None:
    postings = Postings(PostingsRepository(database), low_balance=0)
    packed = messages(make_usage, seed=5, count=10, size=20)
    grants = [Posting(Kind.GRANT, f"g{number % 20}", f"account{number % 20}", 3, "") for number in range(60)]
    async with asyncio.timeout(60):
        await asyncio.gather(
            *(metering.charge(message, 1) for message in packed), *(postings.grant(grant) for grant in grants)
        )
    wanted = {name: available + (name != "acme") * 3 for name, available in expected(packed).items()}
    assert await balances(database) == wanted
    await assert_books_agree()


async def test_of_different_grants_with_one_key_only_one_is_made(
    database: Database, assert_books_agree: Check
) -> None:
    accounts = Accounts(AccountsRepository(database))
    await accounts.open("acme", "")
    postings = Postings(PostingsRepository(database), low_balance=0)
    results = await asyncio.gather(
        *(postings.grant(Posting(Kind.GRANT, "key", "acme", amount, "")) for amount in range(1, 9)),
        return_exceptions=True,
    )
    assert sum(isinstance(result, IdempotencyKeyReused) for result in results) == 7
    assert await database.pool.fetchval("select count(*) from transfers") == 1
    await assert_books_agree()


class Killed(Exception):
    """Stands for the end of the process."""


class DyingRepository(MeteringRepository):
    """Dies after everything was written, just before it is committed."""

    async def emit(self, event: Message, **options: Any) -> None:
        await super().emit(event, **options)
        raise Killed


async def test_killed_before_the_commit_leaves_nothing_and_the_next_attempt_charges(
    database: Database, assert_books_agree: Check, metering: Metering, make_usage: MakeUsage
) -> None:
    message = [make_usage("req_1"), make_usage("req_2", account_id="nobody")]
    before = await database.pool.fetchval("select count(*) from outbox")
    with pytest.raises(Killed):
        await Metering(DyingRepository(database), price_attempts=5, low_balance=0).charge(message, 1)
    for table in ("reported_requests", "usage", "usage_sums", "unrated_usage"):
        assert await database.pool.fetchval(f"select count(*) from {table}") == 0, table
    assert await database.pool.fetchval("select count(*) from outbox") == before
    assert (await balances(database))["acme"] == GRANTED
    await metering.charge(message, 2)
    assert (await balances(database))["acme"] == GRANTED - 2
    await assert_books_agree()


async def test_what_has_nothing_to_do_with_a_call_is_told_apart_so_that_it_is_made_again(
    database: Database, metering: Metering
) -> None:
    repository = AccountsRepository(database)
    both_locked = asyncio.Barrier(2)

    async def take(first: str, second: str) -> None:
        async with repository.transaction() as tx:
            await tx.lock([first])
            await both_locked.wait()
            await tx.lock([second])  # against the order that all keep

    async with asyncio.timeout(60):
        results = await asyncio.gather(
            take("account1", "account2"), take("account2", "account1"), return_exceptions=True
        )
    assert [type(result) for result in results if result] == [LedgerUnavailable]
    with pytest.raises(LedgerUnavailable):
        async with repository.transaction() as tx:
            await tx.db.execute("select pg_terminate_backend(pg_backend_pid())")
    assert LedgerUnavailable.status in TRANSIENT  # so that messages are delivered again, however often
    for mistake in ("select $1::int", "select nothing"):
        with pytest.raises((asyncpg.DataError, asyncpg.UndefinedColumnError)):
            async with repository.transaction() as tx:
                await tx.db.fetch(mistake, *["text"][: mistake.count("$")])


async def test_the_database_refuses_what_would_unbalance_the_ledger(
    database: Database, metering: Metering
) -> None:
    for change in ("update transfers set nano_credits = 1", "delete from transfers"):
        with pytest.raises(asyncpg.RaiseError, match="never change"):
            await database.pool.execute(change)
    post = (
        "insert into transfers (account_id, kind, debit, credit, nano_credits, reference)"
        " values ($1, $2, $3, $4, $5, '')"
    )
    for row in (
        ("acme", "grant", "available", "revenue", 1),
        ("acme", "charge", "available", "available", 1),
        ("acme", "lease", "leased", "available", 1),
        ("acme", "write_off", "available", "revenue", 1),
        ("acme", "gift", "issued", "available", 1),
        ("acme", "grant", "issued", "available", 0),
        ("acme", "grant", "issued", "available", -1),
    ):
        with pytest.raises(asyncpg.CheckViolationError):
            await database.pool.execute(post, *row)
    for book in ("available", "leased"):
        with pytest.raises(asyncpg.CheckViolationError):
            await database.pool.execute(f"update accounts set {book} = -1")


async def test_every_month_has_its_partition(
    database: Database, metering: Metering, make_usage: MakeUsage
) -> None:
    repository = MeteringRepository(database)
    await asyncio.gather(*(repository.create_partitions(15) for _ in range(4)))
    count = "select count(*) from pg_inherits where inhparent = $1::regclass"
    for table in ("usage", "transfers"):
        assert await database.pool.fetchval(count, table) == 1 + 16
    now = datetime.now(UTC)
    await metering.charge([make_usage("req_1", finished_at=now), make_usage("req_2", finished_at=NOON)], 1)
    place = "select tableoid::regclass::text from usage where request_id = $1"
    assert await database.pool.fetchval(place, "req_1") == f"usage_{now:%Y_%m}"
    assert await database.pool.fetchval("select count(*) from transfers_default") == 0


async def test_usage_is_summed_by_bucket_and_group(
    metering: Metering, reports: UsageReports, make_usage: MakeUsage
) -> None:
    await metering.charge(
        [
            make_usage("req_1", quantities={"input_tokens": 3, "output_tokens": 1}),
            make_usage("req_2", key_id="key2"),
            make_usage("req_3", finished_at=NOON + timedelta(hours=1)),
            make_usage("req_4", finished_at=NOON + timedelta(days=2), model="model2"),
            make_usage("req_5", account_id="account1"),
            make_usage("req_6", finished_at=NOON - timedelta(days=40)),
        ],
        1,
    )
    await metering.charge([make_usage("req_7")], 1)

    async def read(
        width: str, *groups: str, limit: int = 100, after: Place | None = None, **chosen: frozenset[str]
    ) -> list[tuple[object, ...]]:
        """Page by page; each page is full, except the last."""
        page = await reports.sums(
            "acme",
            UsageQuery(groups=frozenset(groups), **chosen),
            start=NOON,
            end=NOON + timedelta(days=3),
            width=width,
            after=after,
            limit=limit,
        )
        rows: list[tuple[object, ...]] = [
            (*row.place, row.model, row.key_id, row.requests, row.nano_credits) for row in page.rows
        ]
        if page.has_more:
            assert len(rows) == limit
            rows += await read(width, *groups, limit=limit, after=page.rows[-1].place, **chosen)
        return rows

    midnight = NOON.replace(hour=0)
    day3 = midnight + timedelta(days=2)
    for limit in (1, 2, 3, 100):
        assert await read("1d", limit=limit) == [
            (midnight, 1, None, None, 4, 17), (day3, 1, None, None, 1, 2)
        ]  # fmt: skip
        assert await read("1d", "key", limit=limit) == [
            (midnight, 1, None, "key1", 3, 15),
            (midnight, 2, None, "key2", 1, 2),
            (day3, 1, None, "key1", 1, 2),
        ]
        assert await read("all", "model", "key", limit=limit) == [
            (NOON, 1, "model1", "key1", 3, 15),
            (NOON, 2, "model1", "key2", 1, 2),
            (NOON, 3, "model2", "key1", 1, 2),
        ]
        assert [row[0] for row in await read("1h", limit=limit)] == [
            NOON, NOON + timedelta(hours=1), NOON + timedelta(days=2)
        ]  # fmt: skip
        assert await read("1d", "model", limit=limit, key_ids=frozenset({"key1", "key3"})) == [
            (midnight, 1, "model1", None, 3, 15), (day3, 1, "model2", None, 1, 2)
        ]  # fmt: skip
        assert await read("1d", limit=limit, models=frozenset({"model2"})) == [(day3, 1, None, None, 1, 2)]
        assert await read("1d", limit=limit, after=Place(day3, 1)) == []
    assert await read("all") == [(NOON, 1, None, None, 5, 19)]
    assert await read("all", models=frozenset({"model2"}), key_ids=frozenset({"key2"})) == []
    with pytest.raises(InvalidPeriod):
        await reports.sums("acme", UsageQuery(), start=NOON, end=NOON, width="1d", after=None, limit=1)


async def test_requests_are_listed_newest_first_page_by_page(
    metering: Metering, reports: UsageReports, make_usage: MakeUsage
) -> None:
    now = datetime.now(UTC)
    times = [
        now - timedelta(days=number // 3 * 20) for number in range(12)
    ]  # three of each time, over months
    usages = [make_usage(f"req_{number:02}", finished_at=time) for number, time in enumerate(times)]
    await metering.charge([*usages, make_usage("req_other", account_id="account1")], 1)
    wanted = sorted(usages, key=lambda usage: (usage.finished_at, usage.request_id), reverse=True)
    listed: list[Usage] = []
    after = None
    more = True
    while more:
        page = await reports.requests("acme", after=after, limit=5)
        listed += [charge.usage for charge in page.rows]
        after, more = listed[-1].request_id, page.has_more
    assert listed == wanted
    for unknown in ("req_other", "req_none"):
        with pytest.raises(UnknownCursor):
            await reports.requests("acme", after=unknown, limit=5)


class ExplainingRepository(UsageRepository):
    """Keeps the plans of its queries."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.plans: list[str] = []

    @property
    def db(self) -> Any:
        return self

    async def fetch(self, query: str, *values: object) -> list[asyncpg.Record]:
        plan = await self._database.pool.fetch(f"explain {query}", *values)
        self.plans.append("\n".join(row[0] for row in plan))
        return await self._database.pool.fetch(query, *values)

    async def fetchval(self, query: str, *values: object) -> Any:
        (row,) = await self.fetch(query, *values)
        return row[0]


async def test_usage_is_read_by_indexes_from_few_partitions(database: Database) -> None:
    """Ten million requests are read as fast as some."""
    await database.pool.execute(
        """
        insert into usage_sums
        select 'account' || account, 'hour', now() - hour * interval '1 hour', 'key' || key, 'model1', '',
            1, 1, 1, 1, 1, 1, 1, 1, 1
        from generate_series(1, 20) as account, generate_series(1, 500) as hour, generate_series(1, 4) as key
        """
    )
    await database.pool.execute(
        """
        insert into usage
        select
            'account' || number % 20, now() - number * interval '5 minutes', 'req_' || number, 'key1',
            'model1', '', '', '', '{}', 0, 0, 0, '', false, now()
        from generate_series(1, 20000) as number
        """
    )
    await database.pool.execute("analyze usage_sums, usage")
    repository = ExplainingRepository(database)
    reports = UsageReports(repository)
    now = datetime.now(UTC)
    some = {"models": frozenset({"model1"}), "key_ids": frozenset({"key1", "key2"})}
    for width in ("1h", "1d", "all"):
        for chosen in ({}, some):
            for groups in ((), ("model",), ("model", "key", "operation")):
                query = UsageQuery(groups=frozenset(groups), **chosen)
                await reports.sums(
                    "account7",
                    query,
                    start=now - timedelta(days=300),
                    end=now,
                    width=width,
                    after=None,
                    limit=20,
                )
    assert len(repository.plans) > 18
    for plan in repository.plans:
        assert "usage_sums_pkey" in plan
        assert "Seq Scan" not in plan
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    repository.plans.clear()
    await repository.requests("account7", (month - timedelta(days=1), "req_"), 100)
    (plan,) = repository.plans
    assert "usage_default_pkey" in plan
    assert "Seq Scan" not in plan
    assert f"usage_{month:%Y_%m}" not in plan
