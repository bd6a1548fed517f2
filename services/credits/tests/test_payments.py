"""Payments told by Stripe's events: each has one effect, however often and in whichever order it is told."""

import asyncio
import hashlib
import hmac
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from dozen_chassis.postgres import Database
from dozen_credits.domain.ledger import Kind
from dozen_credits.domain.metering import Price, Usage
from dozen_credits.domain.payments import Receipt, Reversal, TopUp
from dozen_credits.domain.postings import Posting
from dozen_credits.errors.accounts import IdempotencyKeyReused
from dozen_credits.errors.payments import (
    InvalidSignature,
    TopUpRefused,
    TopUpTooLarge,
    UnknownCurrency,
    UnknownPayer,
)
from dozen_credits.repository.accounts import AccountsRepository
from dozen_credits.repository.invoices import InvoicesRepository
from dozen_credits.repository.metering import MeteringRepository
from dozen_credits.repository.payments import PaymentsRepository
from dozen_credits.repository.postings import PostingsRepository
from dozen_credits.routes.stripe import verify
from dozen_credits.schemas.stripe import payment_event
from dozen_credits.service.accounts import Accounts
from dozen_credits.service.invoices import Invoices
from dozen_credits.service.metering import Metering
from dozen_credits.service.payments import EVENTS, NOT_TAKEN_BACK, Payments
from dozen_credits.service.postings import Postings
from dozen_credits.settings import Settings

MakeUsage = Callable[..., Usage]
Check = Callable[[], Awaitable[None]]
CENT = 10_000_000
KEY = b"whsec_test"
NOW = 1_795_000_000


def event(kind: str, subject: dict[str, Any]) -> bytes:
    """Write an event as Stripe does."""
    return json.dumps(
        {
            "id": "evt_1RgRPrEEXQJo9EEOWggvNEHe",
            "object": "event",
            "api_version": "2025-05-28.basil",
            "created": NOW,
            "data": {"object": subject},
            "livemode": False,
            "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None},
            "type": kind,
        },
        indent=2,
    ).encode()


def session(**changes: Any) -> dict[str, Any]:
    """Describe a checkout of ten dollars that is paid."""
    plain = {
        "id": "cs_test_a1RMSyzQu5Mk2cZYoAYLOCV9hfoc5z9RuYdE4jLY2htoizGr1AJZeAcnDh",
        "object": "checkout.session",
        "adaptive_pricing": {"enabled": True},
        "amount_subtotal": 1000,
        "amount_total": 1000,
        "automatic_tax": {"enabled": False, "liability": None, "provider": None, "status": None},
        "cancel_url": "https://example.com/cancel",
        "client_reference_id": "acme",
        "currency": "usd",
        "currency_conversion": None,
        "customer": None,
        "customer_details": {"email": "alice@example.com", "name": "Alice", "tax_ids": []},
        "invoice": None,
        "livemode": False,
        "metadata": {},
        "mode": "payment",
        "payment_intent": "pi_3RgRPqEEXQJo9EEO1a43uB5g",
        "payment_status": "paid",
        "status": "complete",
        "subscription": None,
        "total_details": {"amount_discount": 0, "amount_shipping": 0, "amount_tax": 0},
    }
    return plain | changes


def charge(refunded: int, **changes: Any) -> dict[str, Any]:
    """Describe the charge of that checkout, of which so much was refunded."""
    plain = {
        "id": "ch_3RgRPqEEXQJo9EEO1mDqYbzW",
        "object": "charge",
        "amount": 1000,
        "amount_captured": 1000,
        "amount_refunded": refunded,
        "balance_transaction": "txn_3RgRPqEEXQJo9EEO1Rr5fGxJ",
        "billing_details": {"email": "alice@example.com", "name": "Alice", "phone": None},
        "captured": True,
        "currency": "usd",
        "invoice": None,
        "metadata": {},
        "outcome": {"network_status": "approved_by_network", "type": "authorized"},
        "paid": True,
        "payment_intent": "pi_3RgRPqEEXQJo9EEO1a43uB5g",
        "refunded": refunded == 1000,
        "status": "succeeded",
    }
    return plain | changes


PAYMENT = "stripe:pi_3RgRPqEEXQJo9EEO1a43uB5g"
TOP_UP = TopUp(PAYMENT, "acme", "usd", 1000)
COMPLETED = "checkout.session.completed"
SUCCEEDED = "checkout.session.async_payment_succeeded"
REFUNDED = "charge.refunded"


@pytest.mark.parametrize(
    ("kind", "subject", "told"),
    [
        (COMPLETED, session(), TOP_UP),
        (SUCCEEDED, session(), TOP_UP),
        (COMPLETED, session(payment_status="unpaid"), None),
        (COMPLETED, session(payment_status="no_payment_required", amount_total=0), None),
        (COMPLETED, session(amount_total=0), None),
        (COMPLETED, session(client_reference_id=None), None),
        (COMPLETED, session(client_reference_id=None, metadata={"account_id": "acme"}), TOP_UP),
        (COMPLETED, session(client_reference_id="acme", metadata={"account_id": "other"}), TOP_UP),
        (COMPLETED, session(payment_intent=None, id="cs_1"), replace(TOP_UP, payment="stripe:cs_1")),
        ("checkout.session.expired", session(), None),
        (REFUNDED, charge(300), Reversal(PAYMENT, 300, 1000)),
        (REFUNDED, charge(300, payment_intent=None), None),
        ("customer.created", {"id": "cus_1", "object": "customer"}, None),
    ],
)
def test_an_event_says_what_was_paid_or_given_back(
    kind: str, subject: dict[str, Any], told: TopUp | Reversal | None
) -> None:
    assert payment_event(event(kind, subject)) == told


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"type": "charge.refunded"}',
        event(COMPLETED, {"id": "cs_1"}),
        event(COMPLETED, session(amount_total=-1)),
        event(COMPLETED, session(amount_total=10**15)),
        event(COMPLETED, session(payment_intent="pi\0")),
        event(REFUNDED, charge(-1)),
    ],
)
def test_an_event_that_has_not_the_form_of_its_type_is_refused(body: bytes) -> None:
    with pytest.raises(ValidationError):
        payment_event(body)


def signature(body: bytes, *, time: int = NOW, key: bytes = KEY) -> str:
    return hmac.new(key, str(time).encode() + b"." + body, hashlib.sha256).hexdigest()


BODY = event(COMPLETED, session())
GOOD = signature(BODY)


@pytest.mark.parametrize(
    "header",
    [
        f"t={NOW},v1={GOOD}",
        f"t={NOW}, v1={GOOD}",
        f"t={NOW},v1={signature(BODY, key=b'the secret before')},v1={GOOD},v0={'0' * 64}",
        f"v1={GOOD},t={NOW}",
    ],
)
def test_a_signature_that_fits_is_accepted(header: str) -> None:
    for now in (NOW - 300, NOW, NOW + 300):
        verify(BODY, header, KEY, now)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("", "is missing"),
        ("nonsense", "is missing"),
        (f"t={NOW}", "is missing"),
        (f"v1={GOOD}", "is missing"),
        (f"t=,v1={GOOD}", "is missing"),
        (f"t=-{NOW},v1={GOOD}", "is missing"),
        (f"t={NOW},t={NOW},v1={GOOD}", "is missing"),
        (f"t={NOW},v0={GOOD}", "is missing"),
        (f"t={NOW},v1=", "fits the secret"),
        (f"t={NOW},v1=\xe9", "fits the secret"),
        (f"t={NOW},v1={GOOD[:-1]}", "fits the secret"),
        (f"t={NOW},v1={GOOD.upper()}", "fits the secret"),
        (f"t={NOW + 1},v1={GOOD}", "fits the secret"),
        (f"t={NOW},v1={signature(BODY, key=b'another')}", "fits the secret"),
        (f"t={NOW},v1={signature(BODY + b' ')}", "fits the secret"),
        (f"t={NOW - 301},v1={signature(BODY, time=NOW - 301)}", "five minutes"),
        (f"t={NOW + 301},v1={signature(BODY, time=NOW + 301)}", "five minutes"),
    ],
)
def test_a_signature_that_does_not_fit_is_refused(header: str, reason: str) -> None:
    with pytest.raises(InvalidSignature, match=reason):
        verify(BODY, header, KEY, NOW)


def test_parts_given_back_add_up_to_the_whole() -> None:
    receipt = Receipt("stripe:pi_1", "acme", "usd", 7, nano_credits=1_000, collected=7)
    parts = [replace(receipt, given_back=amount).reversed for amount in range(8)]
    assert parts == [0, 142, 285, 428, 571, 714, 857, 1_000]
    assert replace(receipt, given_back=9).reversed == 1_000
    assert Receipt("stripe:pi_1", given_back=3, collected=7).reversed == 0


def test_payments_need_a_rate_and_rates_are_exact(base_settings_without_servers: dict[str, Any]) -> None:
    def settings(secret: str | None, credits: str) -> Settings:
        given = {"stripe_webhook_secret": secret, "stripe_credits": json.loads(credits)}
        return Settings(**base_settings_without_servers, **given)

    assert settings(None, "{}").stripe_webhook_secret is None
    rates = settings("whsec_1", '{"usd": "0.01", "jpy": "0.006666667"}').stripe_credits
    assert {currency: str(rate) for currency, rate in rates.items()} == {"usd": "0.01", "jpy": "0.006666667"}
    for secret, refused in [
        ("whsec_1", "{}"),
        ("", '{"usd": "0.01"}'),
        *(
            (None, credits)
            for credits in ('{"usd": "0"}', '{"usd": "-1"}', '{"USD": "1"}', '{"usd": "1e-10"}')
        ),
    ]:
        with pytest.raises(ValidationError):
            settings(secret, refused)


@pytest.fixture
def base_settings_without_servers() -> dict[str, Any]:
    """Settings that must be given, none of which is used."""
    return {"grpc_key": "00", "postgres_dsn": "postgresql://", "nats_url": "nats://", "admission_key": "00"}


class Till:
    """The use cases on one database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.accounts = Accounts(AccountsRepository(database))
        self.postings = Postings(PostingsRepository(database), low_balance=0)
        self.payments = Payments(PaymentsRepository(database), rates={"usd": CENT}, low_balance=0)

    async def tell(self, kind: str, subject: dict[str, Any]) -> None:
        await self.payments.receive(payment_event(event(kind, subject)))

    async def available(self) -> int:
        return (await self.accounts.get("acme")).balance.available

    async def count(self, table: str) -> int:
        count: int = await self.database.pool.fetchval(f"select count(*) from {table}")
        return count


@pytest.fixture
async def till(database: Database) -> Till:
    """Keeps an empty account."""
    till = Till(database)
    await till.accounts.open("acme", "Acme")
    return till


@pytest.mark.integration
async def test_a_payment_tops_up_once(till: Till, assert_books_agree: Check) -> None:
    await till.tell(COMPLETED, session(payment_status="unpaid"))
    assert await till.available() == 0
    for _ in range(3):
        await till.tell(SUCCEEDED, session())
        await till.tell(COMPLETED, session())
    assert await till.available() == 1000 * CENT
    await till.tell(COMPLETED, session(payment_intent="pi_2", amount_total=1))
    assert await till.available() == 1001 * CENT
    assert await till.count("payments") == await till.count("postings") == 2
    await assert_books_agree()


@pytest.mark.integration
async def test_what_is_given_back_is_taken_back_once(till: Till, assert_books_agree: Check) -> None:
    await till.tell(COMPLETED, session())
    for refunded in (300, 300, 500, 300, 500):
        await till.tell(REFUNDED, charge(refunded))
    assert await till.available() == 500 * CENT
    await till.tell(REFUNDED, charge(1000))
    assert await till.available() == 0
    adjusted = await till.database.pool.fetch(
        "select nano_credits, actor from postings where kind = 'adjustment' order by created_at"
    )
    assert [tuple(row) for row in adjusted] == [
        (-300 * CENT, "stripe"), (-200 * CENT, "stripe"), (-500 * CENT, "stripe")
    ]  # fmt: skip
    await assert_books_agree()


EVENTS_OF_A_PAYMENT = (
    (COMPLETED, session(payment_status="unpaid")),
    (SUCCEEDED, session()),
    (COMPLETED, session()),
    (REFUNDED, charge(100)),
    (REFUNDED, charge(450)),
    ("payment_intent.succeeded", {"id": "pi_3RgRPqEEXQJo9EEO1a43uB5g", "object": "payment_intent"}),
)


@pytest.mark.integration
@pytest.mark.parametrize("seed", range(12))
async def test_events_in_any_order_come_to_the_same(till: Till, assert_books_agree: Check, seed: int) -> None:
    dice = random.Random(seed)
    told = [*EVENTS_OF_A_PAYMENT, *dice.choices(EVENTS_OF_A_PAYMENT, k=6)]
    dice.shuffle(told)
    if seed % 2:
        async with asyncio.timeout(60):
            await asyncio.gather(*(till.tell(kind, subject) for kind, subject in told))
    else:
        for kind, subject in told:
            await till.tell(kind, subject)
    assert await till.available() == 550 * CENT
    await assert_books_agree()


@pytest.mark.integration
async def test_no_more_is_taken_back_than_is_available(
    till: Till, assert_books_agree: Check, price: Price, make_usage: MakeUsage
) -> None:
    metering = Metering(MeteringRepository(till.database), price_attempts=5, low_balance=0)
    await metering.learn_price(replace(price, nano_credits={"input_tokens": CENT}))
    await till.tell(COMPLETED, session())
    await metering.charge([make_usage("req_1", quantities={"input_tokens": 700})], 1)
    before = NOT_TAKEN_BACK._value.get()
    for _ in range(2):
        await till.tell(REFUNDED, charge(400))
    assert await till.available() == 0
    assert NOT_TAKEN_BACK._value.get() == before + 100 * CENT
    await till.postings.grant(Posting(Kind.GRANT, "later", "acme", 50, ""))
    await till.tell(
        REFUNDED, charge(400)
    )  # what could not be taken back then is not taken from what comes later
    assert await till.available() == 50
    await till.tell(REFUNDED, charge(1000))
    assert await till.available() == 0
    assert NOT_TAKEN_BACK._value.get() == before + 700 * CENT - 50
    await assert_books_agree()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"client_reference_id": "nobody"}, UnknownPayer),
        ({"client_reference_id": "No account\0"}, UnknownPayer),
        ({"currency": "eur"}, UnknownCurrency),
        ({"amount_total": 100_000_001}, TopUpTooLarge),
    ],
)
async def test_a_top_up_that_cannot_be_made_is_counted_and_can_be_told_again(
    till: Till, changes: dict[str, Any], refusal: type[TopUpRefused]
) -> None:
    refused = EVENTS.labels(refusal.code)
    before = refused._value.get()
    for _ in range(2):
        with pytest.raises(refusal) as raised:
            await till.tell(COMPLETED, session(**changes))
        assert raised.value.http.status == 422
    assert refused._value.get() == before + 2
    assert await till.count("payments") == await till.count("postings") == 0
    await till.tell(COMPLETED, session())
    assert await till.available() == 1000 * CENT


@pytest.mark.integration
async def test_a_payment_is_on_the_statement(till: Till) -> None:
    await till.tell(COMPLETED, session())
    await till.tell(REFUNDED, charge(1))
    invoices = Invoices(InvoicesRepository(till.database))
    (month,) = [str(invoice.month) for invoice in (await invoices.page("acme", after=None, limit=9)).rows]
    top_up, adjustment = (await invoices.statement("acme", month)).movements
    assert (top_up.kind, top_up.nano_credits, top_up.reference) == ("top_up", 1000 * CENT, PAYMENT)
    assert (adjustment.kind, adjustment.nano_credits) == ("adjustment", -CENT)
    assert PAYMENT in adjustment.reason


POSTINGS = (
    Posting(Kind.GRANT, "key", "acme", 7, "welcome"),
    Posting(Kind.GRANT, "key", "acme", 7, "another reason"),
    Posting(Kind.GRANT, "key", "acme", 8, "welcome"),
    Posting(Kind.GRANT, "key", "acme", 7, "welcome", priority=1),
    Posting(Kind.GRANT, "key", "other", 7, "welcome"),
    Posting(Kind.ADJUSTMENT, "key", "acme", 7, "welcome", "alice"),
    Posting(Kind.ADJUSTMENT, "key", "acme", 7, "welcome", "bob"),
)


@pytest.mark.integration
async def test_of_concurrent_calls_with_one_key_one_has_its_effect_and_those_that_differ_are_refused(
    till: Till, assert_books_agree: Check
) -> None:
    await till.accounts.open("other", "")

    async def post(posting: Posting) -> Posting:
        await (till.postings.grant if posting.kind is Kind.GRANT else till.postings.adjust)(posting)
        return posting

    async with asyncio.timeout(60):
        results = await asyncio.gather(*map(post, POSTINGS * 4), return_exceptions=True)
    made = {result for result in results if isinstance(result, Posting)}
    assert len(made) == 1
    assert sum(result in made for result in results) == 4
    assert sum(isinstance(result, IdempotencyKeyReused) for result in results) == 4 * (len(POSTINGS) - 1)
    assert await till.count("postings") == await till.count("transfers") == 1
    await assert_books_agree()
