"""Invoices and statements: exact, whatever is delivered how often, late or in which order."""

import asyncio
import base64
import csv
import hashlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dozen_chassis.postgres import Database
from dozen_credits.domain.accounts import Account, Balance
from dozen_credits.domain.invoices import Invoice, Line, Month, Movement, MovementKind, Statement
from dozen_credits.domain.ledger import Kind
from dozen_credits.domain.metering import Price, Usage
from dozen_credits.domain.postings import Posting
from dozen_credits.errors.invoices import InvoiceNotFound, StatementTooLong
from dozen_credits.repository.accounts import AccountsRepository
from dozen_credits.repository.invoices import InvoicesRepository
from dozen_credits.repository.metering import MeteringRepository
from dozen_credits.repository.postings import PostingsRepository
from dozen_credits.routes.documents import Documents, credits
from dozen_credits.service.accounts import Accounts
from dozen_credits.service.invoices import Invoices
from dozen_credits.service.metering import Metering
from dozen_credits.service.postings import Postings

MakeUsage = Callable[..., Usage]
PRICES = (
    Price("p1", "model1", {"input_tokens": 2, "output_tokens": 5}, datetime(2026, 1, 1, tzinfo=UTC)),
    Price("p2", "model1", {"input_tokens": 3, "output_tokens": 5}, datetime(2026, 2, 1, tzinfo=UTC)),
    Price("p3", "model2", {"images": 1_000}, datetime(2026, 1, 1, tzinfo=UTC)),
)
ACCOUNTS = ("acme", "other", "poor")
OCTOBER = datetime(2026, 10, 1, tzinfo=UTC)


class Books:
    """The use cases on one database, and a clock that can be moved."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.accounts = Accounts(AccountsRepository(database))
        self.metering = Metering(MeteringRepository(database), price_attempts=5, low_balance=0)
        self.postings = Postings(PostingsRepository(database), low_balance=0)
        self.invoices = Invoices(InvoicesRepository(database), read_together=3)

    async def grant(self, key: str, amount: int, account_id: str = "acme", **more: Any) -> None:
        await self.postings.grant(Posting(Kind.GRANT, key, account_id, amount, "welcome", **more))

    async def adjust(self, key: str, amount: int) -> None:
        await self.postings.adjust(Posting(Kind.ADJUSTMENT, key, "acme", amount, "a mistake", "alice"))

    async def refund(self, key: str, request_id: str, amount: int) -> None:
        await self.postings.refund(
            request_id, amount, idempotency_key=key, reason="bad answer", actor="alice"
        )

    async def pass_days(self, days: int) -> None:
        """Let everything have been posted so many days earlier than it was."""
        await self.database.pool.execute(
            f"""
            alter table transfers disable trigger transfers_never_change;
            update transfers set created_at = created_at - interval '{days} days';
            alter table transfers enable trigger transfers_never_change;
            update postings set
                created_at = created_at - interval '{days} days',
                expires_at = expires_at - interval '{days} days';
            create temporary table earlier as select * from invoice_days;
            update earlier set day = day - interval '{days} days';
            delete from invoice_days;
            insert into invoice_days select * from earlier;
            drop table earlier;
            """
        )

    async def all_invoices(self, account_id: str, limit: int = 100) -> list[Invoice]:
        found: list[Invoice] = []
        more = True
        while more:
            after = str(found[-1].month) if found else None
            page = await self.invoices.page(account_id, after=after, limit=limit)
            found += page.rows
            more = page.has_more
        return found


@pytest.fixture
async def books(database: Database) -> Books:
    """Keeps three accounts, one of which has nothing."""
    books = Books(database)
    for name in ACCOUNTS:
        await books.accounts.open(name, "")
    for price in PRICES:
        await books.metering.learn_price(price)
    return books


def workload(make_usage: MakeUsage, seed: int, count: int) -> list[Usage]:
    """Make usage of three months, of all accounts, models and prices."""
    dice = random.Random(seed)
    usages = []
    for number in range(count):
        price = dice.choice(PRICES)
        usages.append(
            make_usage(
                f"req_{number}",
                account_id=dice.choice(ACCOUNTS),
                key_id=f"key{dice.randrange(2)}",
                model=price.model_id,
                price_id=price.id,
                quantities={unit: dice.randrange(200) for unit in (*price.nano_credits, "characters")},
                finished_at=OCTOBER
                + timedelta(minutes=dice.randrange(-31, 31) * 1440 + dice.randrange(1440)),
            )
        )
    return usages


def expected_lines(usages: Sequence[Usage], account_id: str, month: Month) -> tuple[Line, ...]:
    prices = {price.id: price for price in PRICES}
    sums: Counter[tuple[str, str, str]] = Counter()
    for usage in usages:
        if usage.account_id == account_id and Month.of(usage.finished_at) == month:
            for unit, quantity in usage.quantities.items():
                sums[usage.model, usage.price_id, unit] += quantity
    lines = [
        Line(model, price_id, unit, quantity, prices[price_id].nano_credits.get(unit, 0))
        for (model, price_id, unit), quantity in sums.items()
    ]
    return tuple(sorted(lines, key=lambda line: (line.model, line.unit, line.price_id)))


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2026-11", (2026, 11), (2026, 12)),
        ("2026-12", (2026, 12), (2027, 1)),
        ("1999-01", (1999, 1), (1999, 2)),
    ],
)
def test_a_month_is_read_and_written(text: str, start: tuple[int, int], end: tuple[int, int]) -> None:
    month = Month.parse(text)
    assert month is not None
    assert (month.start, month.end) == (datetime(*start, 1, tzinfo=UTC), datetime(*end, 1, tzinfo=UTC))
    assert str(month) == text
    assert Month.of(month.end - timedelta(microseconds=1)) == Month.of(month.start) == month
    assert Month.of(month.end) > month


@pytest.mark.parametrize(
    "text", ["", "2026", "2026-13", "2026-00", "2026-1", "26-11", "2026-11\n", "٢٠٢٦-11"]
)
def test_what_is_no_month_is_not_read(text: str) -> None:
    assert Month.parse(text) is None


@pytest.mark.integration
@pytest.mark.parametrize("delivery", ["once", "late", "shuffled", "at once"])
async def test_an_invoice_is_what_its_requests_cost_however_they_are_delivered(
    books: Books, make_usage: MakeUsage, delivery: str
) -> None:
    await books.grant("first", 10**9)
    await books.grant("second", 10**9, "other")
    await books.grant("third", 50_000, "poor")
    usages = workload(make_usage, seed=1, count=300)
    dice = random.Random(delivery)
    messages = [usages[start : start + 20] for start in range(0, len(usages), 20)]
    match delivery:
        case "late":
            messages.sort(key=lambda message: -min(usage.finished_at for usage in message).timestamp())
        case "shuffled" | "at once":
            repeated = [dice.sample(usages, 30) for _ in range(20)]
            messages += [*messages, *repeated]
            dice.shuffle(messages)
    if delivery == "at once":
        async with asyncio.timeout(60):
            await asyncio.gather(*(books.metering.charge(message, 1) for message in messages))
    else:
        for number, message in enumerate(messages):
            await books.metering.charge(message, 1)
            if delivery == "late" and number == len(messages) // 2:
                await books.pass_days(45)
    refunded: defaultdict[tuple[str, Month], int] = defaultdict(int)
    for usage in dice.sample([usage for usage in usages if usage.account_id == "acme"], 5):
        await books.refund(usage.request_id, usage.request_id, 1)
        refunded["acme", Month.of(usage.finished_at)] += 1

    ledger = await books.database.pool.fetch(_LEDGER_BY_MONTH)
    for account_id in ACCOUNTS:
        listed = await books.all_invoices(account_id, limit=1)
        assert [str(one.month) for one in listed] == sorted((str(one.month) for one in listed), reverse=True)
        assert {"2026-09", "2026-10"} <= {str(one.month) for one in listed}
        for summary in listed:
            invoice = await books.invoices.get(account_id, str(summary.month))
            assert replace(invoice, lines=()) == summary
            assert invoice.lines == expected_lines(usages, account_id, invoice.month)
            assert invoice.charged == sum(line.amount for line in invoice.lines)
            assert invoice.refunded == refunded[account_id, invoice.month]
            (rows,) = await books.database.pool.fetch(
                "select count(*), coalesce(sum(nano_credits), 0), coalesce(sum(written_off), 0),"
                " coalesce(sum(refunded), 0) from usage"
                " where account_id = $1 and finished_at >= $2 and finished_at < $3",
                account_id,
                invoice.month.start,
                invoice.month.end,
            )
            assert tuple(rows) == (
                invoice.requests, invoice.charged, invoice.written_off, invoice.refunded
            )  # fmt: skip
            posted = {
                row["kind"]: row["posted"]
                for row in ledger
                if (row["account_id"], row["month"]) == (account_id, invoice.month.start)
            }
            assert posted.get("write_off", 0) == invoice.written_off
            assert posted.get("charge", 0) == invoice.charged - invoice.written_off
    assert sum(invoice.written_off for invoice in await books.all_invoices("poor")) > 0


_LEDGER_BY_MONTH = """
    select
        usage.account_id,
        date_trunc('month', finished_at, 'UTC') as month,
        kind,
        sum(transfers.nano_credits) as posted
    from transfers join usage on request_id = reference
    where kind in ('charge', 'write_off') group by 1, 2, 3
"""


@pytest.mark.integration
@pytest.mark.parametrize("seed", range(4))
async def test_a_statement_leads_from_the_opening_to_the_closing_balance(
    books: Books, make_usage: MakeUsage, seed: int
) -> None:
    dice = random.Random(seed)
    now = datetime.now(UTC)
    spent: list[str] = []
    moved: Counter[str] = Counter()
    await books.grant("before all", 10_000)
    for number in range(60):
        match dice.choice(["grant", "adjust", "spend", "spend", "spend", "refund", "expire", "wait"]):
            case "grant":
                expires_at = now + timedelta(days=1000) if dice.random() < 0.5 else None
                await books.grant(f"g{number}", dice.randrange(1, 3_000), expires_at=expires_at)
            case "adjust":
                available = (await books.accounts.get("acme")).balance.available
                await books.adjust(f"a{number}", dice.choice([700, -min(300, available) or 1]))
            case "spend":
                usages = [
                    make_usage(
                        f"req_{number}_{place}",
                        price_id="p1",
                        quantities={"input_tokens": dice.randrange(900)},
                        finished_at=now - timedelta(days=dice.choice([0, 0, 0, 40])),
                    )
                    for place in range(3)
                ]
                await books.metering.charge(usages, 1)
                spent += [usage.request_id for usage in usages if usage.quantities["input_tokens"] > 450]
                moved["requests"] += sum(1 for usage in usages if usage.quantities["input_tokens"])
            case "refund" if spent:
                request_id = spent.pop()
                paid = await books.database.pool.fetchval(
                    "select nano_credits - written_off from usage where request_id = $1", request_id
                )
                if paid:
                    await books.refund(f"r{number}", request_id, dice.randrange(1, paid + 1))
            case "expire":
                await books.database.pool.execute(
                    "update postings set expires_at = now() where expires_at > now()"
                )
                await books.postings.expire()
            case "wait":
                await books.pass_days(dice.randrange(1, 25))

    months = sorted(invoice.month for invoice in await books.all_invoices("acme", limit=2))
    opening = 0
    for month in months:
        statement = await books.invoices.statement("acme", str(month))
        assert statement.opening == opening
        assert statement.closing == opening + sum(statement.totals.values())
        days = [movement.time.date() for movement in statement.movements]
        assert days == sorted(days)
        assert all(month.start.date() <= day < month.end.date() for day in days)
        rows = await books.database.pool.fetch(_MOVED_BY_DAY, month.start, month.end)
        by_day: Counter[tuple[datetime, str]] = Counter()
        for movement in statement.movements:
            kind = "usage" if movement.kind in ("charge", "write_off") else movement.kind.value
            by_day[movement.time.replace(hour=0, minute=0, second=0, microsecond=0), kind] += (
                movement.nano_credits
            )
        assert {key: amount for key, amount in by_day.items() if amount} == {
            (row["day"], row["kind"]): row["amount"] for row in rows if row["amount"]
        }
        opening = statement.closing
    assert opening == (await books.accounts.get("acme")).balance.total
    billed = await books.all_invoices("acme")
    assert sum(invoice.requests for invoice in billed) == moved["requests"]
    statements = [await books.invoices.statement("acme", str(month)) for month in months]
    for kind, amount in ((MovementKind.CHARGE, "charged"), (MovementKind.WRITE_OFF, "written_off")):
        by_invoice: Counter[str] = Counter()
        for statement in statements:
            for movement in statement.movements:
                if movement.kind is kind:
                    by_invoice[movement.reference] += abs(movement.nano_credits)
        told = {str(invoice.month): getattr(invoice, amount) for invoice in billed}
        assert by_invoice == Counter({month: total for month, total in told.items() if total})


_MOVED_BY_DAY = """
    select
        date_trunc('day', created_at, 'UTC') as day,
        case kind when 'charge' then 'usage' else kind end as kind,
        sum(case when credit = 'available' then nano_credits else -nano_credits end) as amount
    from transfers
    where account_id = 'acme' and kind not in ('lease', 'release', 'write_off')
        and created_at >= $1 and created_at < $2
    group by 1, 2
"""


@pytest.mark.integration
async def test_a_statement_says_what_happened_and_why(books: Books, make_usage: MakeUsage) -> None:
    now = datetime.now(UTC)
    await books.grant("a grant", 100, expires_at=now + timedelta(days=1))
    await books.metering.charge([make_usage("req_1", price_id="p1", finished_at=now)], 1)
    await books.metering.charge([make_usage("req_2", price_id="p1", finished_at=OCTOBER - timedelta(1))], 1)
    await books.refund("a refund", "req_1", 1)
    await books.adjust("an adjustment", -7)
    await books.database.pool.execute("update postings set expires_at = now() where kind = 'grant'")
    await books.postings.expire()
    grant, adjustment = [
        await books.database.pool.fetchval("select id from postings where idempotency_key = $1", key)
        for key in ("a grant", "an adjustment")
    ]
    statement = await books.invoices.statement("acme", f"{now:%Y-%m}")
    told = [
        (movement.kind.value, movement.nano_credits, movement.reason, movement.reference)
        for movement in statement.movements
    ]
    assert told == [
        ("grant", 100, "welcome", grant),
        ("refund", 1, "bad answer", "req_1"),
        ("adjustment", -7, "a mistake", adjustment),
        ("expiry", -89, "welcome", grant),
        ("charge", -2, "", "2026-09"),
        ("charge", -2, "", f"{now:%Y-%m}"),
    ]
    assert (statement.opening, statement.closing) == (0, 1)
    late = await books.invoices.get("acme", "2026-09")
    assert (late.requests, late.charged, late.refunded) == (1, 2, 0)
    assert (await books.invoices.statement("acme", "2026-09")).movements == ()
    assert (await books.invoices.get("acme", f"{now:%Y-%m}")).refunded == 1


@pytest.mark.integration
async def test_only_months_with_activity_have_invoices(books: Books, make_usage: MakeUsage) -> None:
    assert await books.all_invoices("acme") == []
    await books.grant("first", 100)
    await books.pass_days(100)
    granted = Month.of(datetime.now(UTC) - timedelta(days=100))
    assert await books.all_invoices("acme") == [Invoice(granted, 0, 0, 0, 0)]
    await books.metering.charge([make_usage("req_1", price_id="p1", finished_at=OCTOBER)], 1)
    now = Month.of(datetime.now(UTC))
    listed = [str(invoice.month) for invoice in await books.all_invoices("acme", limit=1)]
    assert listed == sorted({str(now), "2026-10", str(granted)}, reverse=True)
    for text in ("2026-05", "2999-12", str(Month.of(now.end)), "2026-1", "nonsense", "\0"):
        with pytest.raises(InvoiceNotFound):
            await books.invoices.get("acme", text)
        with pytest.raises(InvoiceNotFound):
            await books.invoices.statement("acme", text)
    for stranger in ("other", "nobody"):
        with pytest.raises(InvoiceNotFound):
            await books.invoices.get(stranger, "2026-10")


@pytest.mark.integration
async def test_a_statement_that_is_too_long_for_one_answer_can_still_be_read(books: Books) -> None:
    for number in range(8):
        await books.grant(f"key{number}", 1)
    month = Month.of(datetime.now(UTC))
    invoices = Invoices(InvoicesRepository(books.database), read_together=3, most_movements=7)
    with pytest.raises(StatementTooLong):
        await invoices.statement("acme", str(month))
    table = Documents().statement_table(month, 0, invoices.movements("acme", month))
    written = "".join([str(part) async for part in table.body_iterator])
    first, *rows, last = csv.DictReader(written.splitlines())
    assert (first["item"], last["item"], last["nano_credits"]) == ("opening_balance", "closing_balance", "8")
    assert [row["amount"] for row in rows] == ["0.000000001"] * 8


ACME = Account("acme", "<b>Acme</b> & Söhne", Balance("acme", 0, 0, 1), OCTOBER, OCTOBER)
INVOICE = Invoice(
    Month(OCTOBER),
    requests=1_234,
    charged=5_000_000_006,
    written_off=2,
    refunded=1,
    lines=(
        Line("=cmd|' /C calc'!A0", "p1", "input_tokens", 1_000_000_000_000_000_000_000, 0),
        Line("<script>alert(1)</script>", "p2", "images", 2, 2_500_000_003),
    ),
)


def test_an_invoice_as_a_table_adds_up_and_holds_no_formula() -> None:
    answer = Documents().invoice_table(INVOICE)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.headers["content-disposition"] == 'attachment; filename="invoice-2026-10.csv"'
    rows = list(csv.DictReader(bytes(answer.body).decode().splitlines()))
    assert [row["item"] for row in rows] == [
        "usage", "usage", "requests", "charged", "written_off", "refunded", "paid"
    ]  # fmt: skip
    assert rows[0]["model"] == "'=cmd|' /C calc'!A0"
    assert (rows[1]["quantity"], rows[1]["unit_price"], rows[1]["amount"]) == (
        "2", "2.500000003", "5.000000006"
    )  # fmt: skip
    assert sum(int(row["nano_credits"]) for row in rows if row["item"] == "usage") == 5_000_000_006
    assert rows[2]["quantity"] == "1234"
    assert (rows[6]["amount"], rows[6]["nano_credits"]) == ("5.000000003", "5000000003")


def test_a_page_can_be_printed_and_loads_and_runs_nothing() -> None:
    documents = Documents()
    statement = Statement(
        Month(OCTOBER),
        5,
        (
            Movement(OCTOBER, MovementKind.TOP_UP, 10**9, "stripe:pi_1", '"><img src=x onerror=alert(1)>'),
            Movement(OCTOBER, MovementKind.CHARGE, -6, "2026-10"),
        ),
    )
    for answer in (documents.invoice_page(ACME, INVOICE), documents.statement_page(ACME, statement)):
        page = bytes(answer.body).decode()
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "&lt;b&gt;Acme&lt;/b&gt; &amp; Söhne" in page
        assert "@media print" in page
        assert "has not ended" not in page
        assert not re.search(r"<script|<img|<link|url\(|@import|https?:", page)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
    invoice, moved = (
        bytes(answer.body).decode()
        for answer in (documents.invoice_page(ACME, INVOICE), documents.statement_page(ACME, statement))
    )
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in invoice
    for written in ("input tokens", "1,000,000,000,000,000,000,000", "5.000000006", "−0.000000002", "1,234"):
        assert written in invoice
    for written in ("Top-up", "1.00", "−0.000000006", "0.999999999", "stripe:pi_1"):
        assert written in moved
    open_month = replace(INVOICE, month=Month.of(datetime.now(UTC)))
    assert "has not ended" in bytes(documents.invoice_page(ACME, open_month).body).decode()


def test_the_policy_allows_the_style_of_the_page() -> None:
    answer = Documents().invoice_page(ACME, INVOICE)
    style = re.search(r"<style>(.*)</style>", bytes(answer.body).decode(), re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"'sha256-{digest}'" in answer.headers["content-security-policy"]


@pytest.mark.parametrize(
    ("nano_credits", "written"),
    [(0, "0.00"), (1, "0.000000001"), (-1_500_000_000, "−1.50"), (1_234_567 * 10**9, "1,234,567.00")],
)
def test_amounts_are_written_exactly_for_people(nano_credits: int, written: str) -> None:
    assert credits(nano_credits) == written
