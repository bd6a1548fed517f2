"""Reported = rated = posted, on a real database: what was lost is charged once, what differs is named."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from dozen.credits.v1.credits_events_pb2 import (
    UsageRated,
    UsageRecounted,
    UsageRecountRequested,
    UsageReported,
)
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.events import Delivery
from dozen_chassis.postgres import Database
from dozen_credits.domain.ledger import Kind
from dozen_credits.domain.metering import Price, Usage
from dozen_credits.domain.postings import Posting
from dozen_credits.domain.reconciliation import Finding, Period, Reconciliation, State
from dozen_credits.errors.metering import PriceNotKnown
from dozen_credits.errors.reconciliation import InvalidReconciliation, ReconciliationNotFound
from dozen_credits.handlers import Intake, on_usage_recounted, on_usage_reported
from dozen_credits.repository.accounts import AccountsRepository
from dozen_credits.repository.metering import MeteringRepository
from dozen_credits.repository.postings import PostingsRepository
from dozen_credits.repository.reconciliation import ReconciliationRepository
from dozen_credits.service.accounts import Accounts
from dozen_credits.service.metering import Metering
from dozen_credits.service.postings import Postings
from dozen_credits.service.reconciliation import Reconciliations

pytestmark = pytest.mark.integration

MakeUsage = Callable[..., Usage]
Check = Callable[[], Awaitable[None]]
NOW = datetime.now(UTC)
DAY = NOW.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
YESTERDAY = Period(DAY, DAY + timedelta(days=1))
NOON = DAY + timedelta(hours=12, minutes=30)
GRANTED = 1_000


@dataclass
class Stage:
    """Credits, and the services that report to it."""

    database: Database
    intake: Intake
    make_usage: MakeUsage
    deliveries: int = 0

    def usages(self, *names: str, **changes: Any) -> list[Usage]:
        """Make usages of seven nano-credits each."""
        quantities = {"input_tokens": 1, "output_tokens": 1}
        return [
            self.make_usage(name, **{"finished_at": NOON, "quantities": quantities, **changes})
            for name in names
        ]

    async def report(self, usages: Iterable[Usage], again: Mapping[str, str] | None = None) -> str:
        """Deliver usage, for the first time or again; give the id of the event."""
        self.deliveries += 1
        event = UsageReported(records=map(record, usages), **again or {})
        await self.deliver(event, f"event{self.deliveries}")
        return f"event{self.deliveries}"

    async def deliver(self, event: UsageReported, event_id: str) -> None:
        await on_usage_reported(event, Delivery(event_id, 1, datetime.now(UTC)), self.intake)

    async def answer(self, reconciliation_id: str, service: str, usages: Iterable[Usage] = ()) -> None:
        """Send usage again as a service does, and say that it is all."""
        usages = list(usages)
        if usages:
            await self.report(usages, {"reconciliation_id": reconciliation_id, "service": service})
        event = UsageRecounted(reconciliation_id=reconciliation_id, service=service, records=len(usages))
        await on_usage_recounted(event, Delivery("", 1, NOW), self.intake)

    async def reconcile(self, *again: Usage) -> tuple[Reconciliation, list[Finding]]:
        """Reconcile yesterday while chat sends this again, and audio has nothing to send."""
        started = await self.reconciliations.start(YESTERDAY)
        await self.answer(started.id, "chat", again)
        await self.answer(started.id, "audio")
        await self.reconciliations.advance()
        return await self.reconciliations.get(started.id)

    @property
    def reconciliations(self) -> Reconciliations:
        return self.intake.reconciliations

    async def available(self) -> int:
        return int(await self.database.pool.fetchval("select available from accounts where id = 'acme'"))

    async def tamper(self, statement: str, *values: object) -> None:
        async with self.database.pool.acquire() as connection:
            await connection.execute("alter table transfers disable trigger user")
            await connection.execute(statement, *values)


def record(usage: Usage) -> UsageRecord:
    made = UsageRecord(
        request_id=usage.request_id,
        account_id=usage.account_id,
        key_id=usage.key_id,
        model=usage.model,
        deployment_id=usage.deployment_id,
        operation=usage.operation,
        price_id=usage.price_id,
        quantities=usage.quantities,
        estimated=usage.estimated,
        lease_id=usage.lease_id,
    )
    made.finished_at.FromDatetime(usage.finished_at)
    return made


def sides(one: Reconciliation) -> list[tuple[int, int]]:
    return [
        (one.side(name).requests, one.side(name).nano_credits) for name in ("reported", "rated", "posted")
    ]


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


def reconciliations_of(
    database: Database,
    answer_within: timedelta = timedelta(minutes=10),
    daily_after: timedelta = timedelta(hours=1),
) -> Reconciliations:
    return Reconciliations(
        ReconciliationRepository(database),
        services=["chat", "audio"],
        answer_within=answer_within,
        daily_after=daily_after,
    )


@pytest.fixture
async def stage(database: Database, price: Price, make_usage: MakeUsage) -> Stage:
    accounts = Accounts(AccountsRepository(database))
    postings = Postings(PostingsRepository(database), low_balance=0)
    for name in ("acme", "other"):
        await accounts.open(name, "")
        await postings.grant(Posting(Kind.GRANT, name, name, GRANTED, ""))
    metering = Metering(MeteringRepository(database), price_attempts=5, low_balance=0)
    await metering.learn_price(price)
    return Stage(database, Intake(metering, reconciliations_of(database)), make_usage)


async def test_what_was_reported_rated_and_posted_agrees(stage: Stage, assert_books_agree: Check) -> None:
    usages = [*stage.usages("a", "b"), *stage.usages("free", quantities={"images": 3})]
    nothing = stage.usages("nothing", quantities={})
    outside = stage.usages("before", finished_at=DAY - timedelta(seconds=1))
    await stage.report([*usages, *nothing, *outside])
    before = metric("dozen_credits_reconciled_records_total", result="matched")
    found, findings = await stage.reconcile(*usages, *nothing, *outside)
    assert (found.state, found.agrees, found.findings, findings) == (State.COMPLETE, True, {}, [])
    assert sides(found) == [(3, 14)] * 3
    assert found.received == 5
    assert metric("dozen_credits_reconciled_records_total", result="matched") == before + 4
    assert metric("dozen_credits_reconciliation_findings", kind="missing") == 0
    assert metric("dozen_credits_reconciliation_completed_timestamp_seconds") > NOW.timestamp()
    assert await stage.available() == GRANTED - 21
    await assert_books_agree()


async def test_what_was_lost_is_found_and_charged_once(stage: Stage, assert_books_agree: Check) -> None:
    arrived, lost = stage.usages("arrived"), stage.usages("lost1", "lost2")
    ended_late = stage.usages("lost3", finished_at=YESTERDAY.end + timedelta(minutes=1))
    await stage.report(arrived)
    before = metric("dozen_credits_reconciled_records_total", result="missing")
    found, findings = await stage.reconcile(*arrived, *lost, *ended_late)
    assert (found.findings, found.agrees) == ({"missing": 3}, True)
    assert [(one.kind, one.account_id, one.reference) for one in findings] == [
        ("missing", "acme", "lost1"),
        ("missing", "acme", "lost2"),
        ("missing", "acme", "lost3"),
    ]
    assert sides(found) == [(3, 21)] * 3
    assert metric("dozen_credits_reconciled_records_total", result="missing") == before + 3
    assert metric("dozen_credits_reconciliation_findings", kind="missing") == 3
    await stage.report(lost)  # it was only late
    assert await stage.available() == GRANTED - 28
    again, _ = await stage.reconcile(*arrived, *lost, *ended_late)
    assert (again.id != found.id, again.findings, again.agrees) == (True, {}, True)
    assert await stage.available() == GRANTED - 28
    await assert_books_agree()


async def test_a_killed_consumer_counts_and_charges_once(stage: Stage, assert_books_agree: Check) -> None:
    lost = stage.usages("lost")
    started = await stage.reconciliations.start(YESTERDAY)
    event = UsageReported(records=map(record, lost), reconciliation_id=started.id, service="chat")
    usages = await stage.reconciliations.compare(started.id, "chat", lost, "again")
    assert usages == lost  # and here it is killed, before they are charged
    await stage.answer(started.id, "audio")
    await on_usage_recounted(
        UsageRecounted(reconciliation_id=started.id, service="chat", records=1),
        Delivery("", 1, NOW),
        stage.intake,
    )
    await stage.reconciliations.advance()
    waiting, _ = await stage.reconciliations.get(started.id)
    assert (waiting.state, waiting.waiting_for) == (State.RUNNING, ())
    for _ in range(2):
        await stage.deliver(event, "again")
    await stage.reconciliations.advance()
    found, _ = await stage.reconciliations.get(started.id)
    assert (found.findings, found.agrees, found.received) == ({"missing": 1}, True, 1)
    assert await stage.available() == GRANTED - 7
    await assert_books_agree()


@pytest.mark.parametrize(
    ("statement", "difference"),
    [
        (
            """update usage set quantities = '{"input_tokens": 9, "output_tokens": 1}'""",
            {
                "quantities": {
                    "reported": {"input_tokens": 1, "output_tokens": 1},
                    "rated": {"input_tokens": 9, "output_tokens": 1},
                }
            },
        ),
        ("update usage set price_id = 'price2'", {"price_id": {"reported": "price1", "rated": "price2"}}),
        ("update usage set key_id = 'key2'", {"key_id": {"reported": "key1", "rated": "key2"}}),
        ("update usage set nano_credits = 8", {"nano_credits": {"reported": 7, "rated": 8}}),
        ("update usage set account_id = 'other'", {"nano_credits": {"reported": 7, "rated": None}}),
    ],
)
async def test_a_tampered_record_is_named(stage: Stage, statement: str, difference: dict[str, Any]) -> None:
    good, bad = stage.usages("good", "bad")
    await stage.report([good, bad])
    await stage.tamper(f"{statement} where request_id = 'bad'")
    found, findings = await stage.reconcile(good, bad)
    assert (found.state, found.agrees, found.findings["mismatched"]) == (State.COMPLETE, False, 1)
    (mismatch,) = (one for one in findings if one.kind == "mismatched")
    assert (mismatch.account_id, mismatch.reference) == ("acme", "bad")
    assert json.loads(mismatch.detail) == difference
    assert await stage.available() == GRANTED - 14  # nothing is charged for it again


async def test_a_tampered_report_is_named(stage: Stage) -> None:
    good, moved, more = stage.usages("good", "moved", "more")
    await stage.report([good, moved, more])
    found, findings = await stage.reconcile(
        good,
        replace(moved, finished_at=moved.finished_at + timedelta(hours=1)),
        replace(more, quantities={"input_tokens": 100}),
    )
    assert (found.agrees, found.findings) == (False, {"mismatched": 2})
    assert [one.reference for one in findings] == ["more", "moved"]
    assert json.loads(findings[0].detail)["nano_credits"] == {"reported": 200, "rated": 7}
    assert list(json.loads(findings[1].detail)) == ["finished_at"]
    assert sides(found) == [(3, 214), (3, 21), (3, 21)]


async def test_clocks_a_little_apart_do_not_matter(stage: Stage) -> None:
    (usage,) = stage.usages("a", finished_at=DAY)
    await stage.report([usage])
    found, _ = await stage.reconcile(replace(usage, finished_at=DAY - timedelta(minutes=1)))
    assert (found.agrees, sides(found)) == (True, [(1, 7)] * 3)


@pytest.mark.parametrize("first_is_right", [True, False])
async def test_of_two_reports_of_a_request_the_rated_one_counts(stage: Stage, first_is_right: bool) -> None:
    (rated,) = stage.usages("a")
    other = replace(rated, quantities={"input_tokens": 50})
    await stage.report([rated])
    await stage.report([other])
    both = [rated, other] if first_is_right else [other, rated]
    started = await stage.reconciliations.start(YESTERDAY)
    again = {"reconciliation_id": started.id, "service": "chat"}
    for one in both:
        await stage.report([one], again)
    await stage.report(both, again)
    event = UsageRecounted(reconciliation_id=started.id, service="chat", records=4)
    await on_usage_recounted(event, Delivery("", 1, NOW), stage.intake)
    await stage.answer(started.id, "audio")
    await stage.reconciliations.advance()
    found, _ = await stage.reconciliations.get(started.id)
    assert (found.agrees, sides(found)) == (True, [(1, 7)] * 3)


async def test_usage_of_nothing_that_was_lost_is_told_to_the_gateway(stage: Stage) -> None:
    (nothing,) = stage.usages("a", quantities={}, lease_id="lease_1")
    found, _ = await stage.reconcile(nothing)
    assert (found.agrees, found.findings, sides(found)) == (True, {}, [(0, 0)] * 3)
    payload = await stage.database.pool.fetchval(
        "select payload from outbox where subject = 'dozen.credits.v1.UsageRated'"
    )
    assert [charge.usage.request_id for charge in UsageRated.FromString(payload).charges] == ["a"]


async def test_nothing_rated_where_something_was_reported_is_a_mismatch(stage: Stage) -> None:
    (usage,) = stage.usages("a")
    await stage.report([replace(usage, quantities={})])
    found, _ = await stage.reconcile(usage)
    assert (found.agrees, found.findings, sides(found)) == (
        False,
        {"mismatched": 1},
        [(1, 7), (0, 0), (0, 0)],
    )


async def test_what_cannot_be_rated_is_named(stage: Stage) -> None:
    known, lost = stage.usages("known", "lost", account_id="nobody")
    (senseless,) = stage.usages("senseless", account_id="\0")
    await stage.report([known])
    found, findings = await stage.reconcile(known, lost, senseless)
    assert (found.agrees, found.findings) == (False, {"set_aside": 3})
    assert [(one.account_id, one.reference) for one in findings] == [
        ("", "senseless"),
        ("nobody", "known"),
        ("nobody", "lost"),
    ]


async def test_missing_usage_waits_for_its_price(stage: Stage, price: Price) -> None:
    usages = stage.usages("a", price_id="price2")
    started = await stage.reconciliations.start(YESTERDAY)
    again = {"reconciliation_id": started.id, "service": "chat"}
    with pytest.raises(PriceNotKnown):
        await stage.report(usages, again)
    for service, records in (("chat", 1), ("audio", 0)):
        event = UsageRecounted(reconciliation_id=started.id, service=service, records=records)
        await on_usage_recounted(event, Delivery("", 1, NOW), stage.intake)
    await stage.reconciliations.advance()
    assert (await stage.reconciliations.get(started.id))[0].state is State.RUNNING
    await reconciliations_of(stage.database, timedelta(0)).advance()
    found, _ = await stage.reconciliations.get(started.id)
    assert (found.state, found.agrees, sides(found)) == (State.COMPLETE, False, [(1, 0), (0, 0), (0, 0)])
    await stage.intake.metering.learn_price(replace(price, id="price2"))
    await stage.deliver(UsageReported(records=map(record, usages), **again), f"event{stage.deliveries}")
    assert await stage.available() == GRANTED - 7


async def test_what_nobody_reported_is_named(stage: Stage) -> None:
    usages = stage.usages("a", "b")
    await stage.report(usages)
    found, findings = await stage.reconcile(usages[0])
    assert (found.agrees, found.findings, sides(found)) == (
        False,
        {"unreported": 1},
        [(1, 7), (2, 14), (2, 14)],
    )
    assert [(one.kind, one.account_id, one.reference) for one in findings] == [("unreported", "acme", "b")]


@pytest.mark.parametrize(
    ("statement", "kind", "posted"),
    [
        ("update transfers set nano_credits = 6 where reference = 'a'", "misposted", (0, 6)),
        (
            "update transfers set kind = 'write_off', debit = 'written_off' where reference = 'a'",
            "misposted",
            (0, 7),
        ),
        ("delete from transfers where reference = 'a'", "misposted", (0, 0)),
        (
            "insert into transfers (account_id, kind, debit, credit, nano_credits, reference, created_at)"
            " select account_id, kind, debit, credit, nano_credits, reference, created_at from transfers"
            " where reference = 'a'",
            "misposted",
            (0, 14),
        ),
        (
            "insert into transfers (account_id, kind, debit, credit, nano_credits, reference, created_at)"
            " select account_id, kind, debit, credit, nano_credits, reference, $1 from transfers"
            " where reference = 'a'",
            "unfounded",
            (1, 7),
        ),
        (
            "insert into transfers (account_id, kind, debit, credit, nano_credits, reference, created_at)"
            " values ('acme', 'charge', 'available', 'revenue', 7, 'a', $1)",
            "unfounded",
            (1, 7),
        ),
    ],
)
async def test_a_tampered_ledger_is_named(
    stage: Stage, statement: str, kind: str, posted: tuple[int, int]
) -> None:
    usages = stage.usages("a")
    await stage.report(usages)
    await stage.tamper(statement, *[NOON] * ("$1" in statement))
    found, findings = await stage.reconcile(*usages)
    assert (found.agrees, found.findings) == (False, {kind: 1})
    assert [(one.kind, one.account_id, one.reference) for one in findings] == [(kind, "acme", "a")]
    assert sides(found) == [(1, 7), (1, 7), posted]


@pytest.mark.parametrize(
    "statement",
    [
        "update usage_sums set nano_credits = nano_credits + 1 where step = $1",
        "update usage_sums set output_tokens = 0 where step = $1",
        "delete from usage_sums where step = $1",
        "update usage_sums set model = 'model2' where step = $1",
    ],
)
@pytest.mark.parametrize("step", ["hour", "day", "month"])
async def test_tampered_sums_are_named(stage: Stage, statement: str, step: str) -> None:
    usages = stage.usages("a", "b")
    await stage.report(usages)
    await stage.tamper(statement, step)
    found, findings = await stage.reconcile(*usages)
    assert (found.state, found.agrees) == (State.COMPLETE, False)
    assert found.findings.keys() == {"missummed"}
    assert {one.account_id for one in findings} == {"acme"}
    assert any(one.reference.startswith(f"{step} {DAY:%Y-%m}") for one in findings)
    assert sides(found) == [(2, 14)] * 3


async def test_a_service_that_does_not_answer_is_named_and_may_answer_late(stage: Stage) -> None:
    usages = stage.usages("a", "b")
    await stage.report(usages)
    started = await stage.reconciliations.start(YESTERDAY)
    await stage.answer(started.id, "audio")
    await stage.reconciliations.advance()
    assert (await stage.reconciliations.get(started.id))[0].waiting_for == ("chat",)
    impatient = reconciliations_of(stage.database, timedelta(0))
    await impatient.advance()
    found, findings = await stage.reconciliations.get(started.id)
    assert (found.state, found.agrees, found.waiting_for) == (State.INCOMPLETE, False, ("chat",))
    assert (found.findings, findings, sides(found)) == ({}, [], [(0, 0), (2, 14), (2, 14)])

    again = {"reconciliation_id": started.id, "service": "chat"}
    event = UsageRecounted(reconciliation_id=started.id, service="chat", records=2)
    await on_usage_recounted(event, Delivery("", 1, NOW), stage.intake)  # it overtakes what it speaks of
    await stage.report(usages[:1], again)
    await impatient.advance()
    assert (await stage.reconciliations.get(started.id))[0].state is State.INCOMPLETE
    await stage.report(usages[1:], again)
    await impatient.advance()
    found, _ = await stage.reconciliations.get(started.id)
    assert (found.state, found.agrees, sides(found)) == (State.COMPLETE, True, [(2, 14)] * 3)
    await stage.report(stage.usages("later"), again)
    assert (await stage.reconciliations.get(started.id))[0] == found
    assert await stage.available() == GRANTED - 21


async def test_the_services_are_asked_for_somewhat_more_than_the_period(stage: Stage) -> None:
    started = await stage.reconciliations.start(YESTERDAY)
    (row,) = await stage.database.pool.fetch(
        "select payload from outbox where subject = 'dozen.credits.v1.UsageRecountRequested'"
    )
    asked = UsageRecountRequested.FromString(row["payload"])
    assert asked.reconciliation_id == started.id
    assert asked.start.ToDatetime(UTC) == YESTERDAY.start - timedelta(minutes=5)
    assert asked.end.ToDatetime(UTC) == YESTERDAY.end + timedelta(minutes=5)


async def test_of_many_replicas_one_begins_and_one_ends(stage: Stage) -> None:
    replicas = [reconciliations_of(stage.database) for _ in range(5)]
    started = await asyncio.gather(*(replica.start(YESTERDAY) for replica in replicas))
    assert len({one.id for one in started}) == 1
    for service in ("chat", "audio"):
        await stage.answer(started[0].id, service)
    await asyncio.gather(*(replica.advance() for replica in replicas))
    (found,) = (await replicas[0].page("", 20)).rows
    assert found.state is State.COMPLETE


async def test_yesterday_is_reconciled_once_however_often_replicas_start(stage: Stage) -> None:
    replicas = [reconciliations_of(stage.database, daily_after=timedelta(0)) for _ in range(5)]
    await asyncio.gather(*(replica.start_daily() for replica in replicas))
    (one,) = (await replicas[0].page("", 20)).rows
    assert (one.automatic, one.period) == (True, YESTERDAY)
    for service in ("chat", "audio"):
        await stage.answer(one.id, service)
    await replicas[0].advance()
    await replicas[0].start_daily()
    assert len((await replicas[0].page("", 20)).rows) == 1


async def test_the_day_is_not_reconciled_as_soon_as_it_ends(stage: Stage) -> None:
    early = reconciliations_of(stage.database, daily_after=timedelta(hours=24))
    await early.start_daily()
    assert (await early.page("", 20)).rows == []


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (DAY, DAY),
        (DAY, DAY - timedelta(days=1)),
        (DAY, NOW + timedelta(hours=1)),
        (NOW - timedelta(days=33), NOW - timedelta(days=1)),
        (NOW - timedelta(days=35), NOW - timedelta(days=34)),
    ],
)
async def test_senseless_periods_are_refused(stage: Stage, start: datetime, end: datetime) -> None:
    with pytest.raises(InvalidReconciliation):
        await stage.reconciliations.start(Period(start, end))


async def test_reconciliations_are_read_page_by_page(stage: Stage) -> None:
    hours = list(YESTERDAY.hours())
    assert len(hours) == 24
    ids = [(await stage.reconciliations.start(hour)).id for hour in hours[:5]]
    first = await stage.reconciliations.page("", 3)
    second = await stage.reconciliations.page(first.rows[-1].id, 3)
    assert [one.id for one in (*first.rows, *second.rows)] == ids[::-1]
    assert (first.has_more, second.has_more) == (True, False)
    for unknown in ("recon_none", "\0"):
        with pytest.raises(ReconciliationNotFound):
            await stage.reconciliations.page(unknown, 3)


async def test_what_was_kept_to_compare_is_forgotten(stage: Stage) -> None:
    usages = stage.usages(*map(str, range(30)))
    started = await stage.reconciliations.start(YESTERDAY)
    await stage.answer(started.id, "chat", usages)
    await stage.reconciliations.forget()
    count = "select count(*) from recounted_requests"
    assert await stage.database.pool.fetchval(count) == 30
    await stage.answer(started.id, "audio")
    await stage.reconciliations.advance()
    assert await ReconciliationRepository(stage.database).forget_recounts(20) == 20
    await stage.reconciliations.forget()
    assert await stage.database.pool.fetchval(count) == 0
    found, findings = await stage.reconciliations.get(started.id)
    assert (found.findings, len(findings)) == ({"missing": 30}, 30)
