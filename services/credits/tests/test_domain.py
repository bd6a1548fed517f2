"""Rules of amounts, rating and sums."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dozen_credits.domain.accounts import LARGEST_AMOUNT, Balance, credits_text, is_account_id
from dozen_credits.domain.leases import Lease, pay
from dozen_credits.domain.ledger import Book, Kind, alerts
from dozen_credits.domain.metering import Charge, Price, Reason, Unrated, Usage, rate, storable_id
from dozen_credits.domain.postings import Lot, expire
from dozen_credits.domain.usage import Buckets, Step, SumKey, sum_up

MakeUsage = Callable[..., Usage]
NOON = datetime(2026, 10, 5, 12, 30, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


@pytest.mark.parametrize(
    ("nano_credits", "text"),
    [
        (9_998_765_432, "9.998765432"),
        (0, "0.000000000"),
        (1, "0.000000001"),
        (-1, "-0.000000001"),
        (-1_500_000_000, "-1.500000000"),
        (9_007_199_254_740_993_000_000_001, "9007199254740993.000000001"),
    ],
)
def test_amounts_are_written_exactly(nano_credits: int, text: str) -> None:
    assert credits_text(nano_credits) == text


@pytest.mark.parametrize("text", ["", "Acme", "acme-1", "a" * 33, "acme\n", "é"])
def test_an_account_id_is_lower_case_letters_and_digits(text: str) -> None:
    assert not is_account_id(text)
    assert is_account_id("acme1")


def test_the_amounts_of_all_units_add_up(make_usage: MakeUsage, price: Price) -> None:
    usage = make_usage("req_1", quantities={"input_tokens": 7, "output_tokens": 3, "images": 0})
    assert rate(usage, price) == Charge(usage, 29)


def test_a_unit_that_the_price_lacks_is_free_and_named(make_usage: MakeUsage, price: Price) -> None:
    usage = make_usage("req_1", quantities={"input_tokens": 7, "images": 4})
    assert rate(usage, price) == Charge(usage, 14, unpriced=("images",))
    hit = make_usage("req_2", quantities={"cache_hits": 1})
    assert rate(hit, price) == Charge(hit, 0)


@pytest.mark.parametrize(
    "changes",
    [
        {"account_id": "no account"},
        {"account_id": ""},
        {"quantities": {"input_tokens": -1}},
        {"quantities": {"Tokens": 1}},
        {"quantities": {f"unit{number}": 1 for number in range(33)}},
        {"quantities": {"input_tokens": 10**15 + 1}},
        {"model": "m\0"},
        {"operation": "o" * 257},
    ],
)
def test_usage_outside_the_limits_is_ill_formed(
    make_usage: MakeUsage, price: Price, changes: dict[str, object]
) -> None:
    usage = make_usage("req_1", **changes)
    assert rate(usage, price) == Unrated(usage, Reason.ILL_FORMED)


@pytest.mark.parametrize("reported", ["", "req 1", "req_\0", "r" * 129, "réq"])
def test_an_ill_formed_request_id_can_be_kept_and_stays_ill_formed(
    make_usage: MakeUsage, price: Price, reported: str
) -> None:
    kept = storable_id(reported)
    assert kept.isascii()
    assert kept.isprintable()
    usage = make_usage(kept)
    assert rate(usage, price) == Unrated(usage, Reason.ILL_FORMED)
    assert storable_id("req_1") == "req_1"


def test_usage_without_a_known_price_and_of_a_senseless_amount_is_not_charged(
    make_usage: MakeUsage, price: Price
) -> None:
    usage = make_usage("req_1")
    assert rate(usage, None) == Unrated(usage, Reason.UNKNOWN_PRICE)
    most = make_usage("req_2", quantities={"input_tokens": LARGEST_AMOUNT // 2})
    assert rate(most, price) == Charge(most, LARGEST_AMOUNT)
    more = make_usage("req_2", quantities={"input_tokens": LARGEST_AMOUNT // 2 + 1})
    assert rate(more, price) == Unrated(more, Reason.TOO_LARGE)


def test_charges_of_one_message_share_their_lease_and_their_balance(make_usage: MakeUsage) -> None:
    lease = Lease("lease_1", "acme", "", "gateway1", 20, 5, 3, NOON, None)
    charges = [Charge(make_usage(f"req_{number}", lease_id="lease_1"), 5) for number in range(5)]
    other = Charge(make_usage("req_other", account_id="other", lease_id="lease_1"), 5)
    balances = {"acme": Balance("acme", 9, 12, 1), "other": Balance("other", 4, 0, 1)}
    payments = pay([*charges, other], balances, {lease.id: lease})
    paid = [(payment.leased, payment.available, payment.written_off) for payment in payments]
    assert paid == [(5, 0, 0), (5, 0, 0), (2, 3, 0), (0, 5, 0), (0, 1, 4), (0, 4, 1)]
    posted = [transfer for payment in payments for transfer in payment.transfers()]
    assert sum(transfer.nano_credits for transfer in posted) == 30
    assert {(one.kind, one.debit, one.credit) for one in posted} == {
        (Kind.CHARGE, Book.LEASED, Book.REVENUE),
        (Kind.CHARGE, Book.AVAILABLE, Book.REVENUE),
        (Kind.WRITE_OFF, Book.WRITTEN_OFF, Book.REVENUE),
    }


def test_alerts_are_given_as_a_balance_falls() -> None:
    def between(before: tuple[int, int], after: tuple[int, int]) -> list[str]:
        found = alerts({"acme": Balance("acme", *before, 1)}, {"acme": Balance("acme", *after, 2)}, 10)
        return [alert.value for alert, _ in found]

    assert between((10, 0), (5, 4)) == ["low"]
    assert between((0, 10), (0, 0)) == ["low", "exhausted"]
    assert between((9, 0), (0, 0)) == ["exhausted"]
    assert between((0, 9), (9, 0)) == between((9, 0), (8, 0)) == between((0, 0), (0, 0)) == []
    assert between((20, 0), (5, 5)) == between((0, 0), (5, 0)) == []


def test_of_expired_credits_no_more_is_taken_than_is_available() -> None:
    lots = [Lot("grant_1", "acme", 5), Lot("grant_2", "acme", 5), Lot("grant_3", "other", 5)]
    taken = [(lot.posting_id, lot.remaining) for lot in expire(lots, {"acme": 7, "other": 0})]
    assert taken == [("grant_1", 5), ("grant_2", 2)]


def test_charges_are_summed_by_every_step_and_by_everything_that_differs(make_usage: MakeUsage) -> None:
    charges = [
        Charge(make_usage("req_1", quantities={"input_tokens": 3, "pages": 9}), 6),
        Charge(make_usage("req_2", quantities={"input_tokens": 4}), 8),
        Charge(make_usage("req_3", key_id="key2"), 2),
        Charge(make_usage("req_4", finished_at=NOON.replace(hour=13, minute=0)), 2),
        Charge(make_usage("req_5", finished_at=NOON.replace(day=6)), 2),
        Charge(make_usage("req_6", finished_at=NOON.replace(month=11)), 2),
    ]
    sums = sum_up(charges)
    whose = ("key1", "model1", "POST /v1/chat/completions")
    found = {
        (key.step, key.start.month, key.start.day, key.start.hour): amounts[:3]
        for key, amounts in sums.items()
        if key[3:] == whose
    }
    assert found == {
        (Step.HOUR, 10, 5, 12): [2, 14, 7],
        (Step.HOUR, 10, 5, 13): [1, 2, 1],
        (Step.HOUR, 10, 6, 12): [1, 2, 1],
        (Step.HOUR, 11, 5, 12): [1, 2, 1],
        (Step.DAY, 10, 5, 0): [3, 16, 8],
        (Step.DAY, 10, 6, 0): [1, 2, 1],
        (Step.DAY, 11, 5, 0): [1, 2, 1],
        (Step.MONTH, 10, 1, 0): [4, 18, 9],
        (Step.MONTH, 11, 1, 0): [1, 2, 1],
    }
    for step in Step:
        every = [amounts for key, amounts in sums.items() if key.step is step]
        assert [sum(column) for column in zip(*every, strict=True)] == [6, 22, 11, 0, 0, 0, 0, 0, 0]
    assert sums[SumKey("acme", Step.DAY, NOON.replace(hour=0, minute=0), "key2", *whose[1:])][0] == 1


@given(
    start=st.datetimes(datetime(2026, 1, 1), datetime(2028, 4, 1), timezones=st.just(UTC)),
    length=st.timedeltas(timedelta(seconds=1), timedelta(days=800)),
    width=st.sampled_from([HOUR, DAY, None]),
)
def test_a_period_is_read_in_whole_steps_without_a_gap(
    start: datetime, length: timedelta, width: timedelta | None
) -> None:
    buckets = Buckets.covering(start, start + length, width)
    spans = buckets.spans()
    assert spans[0].start == buckets.start <= start
    assert spans[-1].end == buckets.end >= start + length
    assert all(one.end == other.start for one, other in pairwise(spans))
    assert all(one.step is not other.step for one, other in pairwise(spans))
    for span in spans:
        for time in span[1:]:
            assert time.minute == time.second == time.microsecond == 0
            assert time.hour == 0 or span.step is Step.HOUR
            assert time.day == 1 or span.step is not Step.MONTH
        if width is None:  # of each step no more than the next longer one has
            assert span.step is not Step.HOUR or span.end - span.start < 2 * DAY
            assert span.step is not Step.DAY or span.end - span.start < timedelta(days=62)
        else:
            assert span.step is (Step.HOUR if width == HOUR else Step.DAY)


def test_a_period_is_widened_to_whole_buckets() -> None:
    start, end = NOON, NOON + timedelta(days=1, minutes=1)
    days = Buckets.covering(start, end, DAY)
    assert days == Buckets(NOON.replace(hour=0, minute=0), NOON.replace(day=7, hour=0, minute=0), DAY)
    hours = Buckets.covering(start, start + HOUR, HOUR)
    assert (hours.start.hour, hours.end.hour) == (12, 14)
    one = Buckets.covering(start, start + HOUR, None)
    assert one == Buckets(NOON.replace(minute=0), NOON.replace(hour=14, minute=0), timedelta(hours=2))
    exact = Buckets.covering(NOON.replace(minute=0), NOON.replace(minute=0) + HOUR, HOUR)
    assert exact.end - exact.start == HOUR


def test_a_list_goes_on_in_the_bucket_where_it_stopped() -> None:
    days = Buckets.covering(NOON, NOON + 3 * DAY, DAY)
    assert days.starting(days.start) == days.starting(days.start - 9 * DAY) == days
    assert days.starting(days.start + timedelta(hours=25)).start == days.start + DAY
    assert days.starting(days.end).spans() == []
