"""How amounts and times are written on the pages."""

from datetime import UTC, datetime, timedelta

import pytest
from jinja2 import UndefinedError

from dozen_admin.domain.keys import Budget, RateLimits
from dozen_admin.routes.rendering import (
    STATIC,
    Pages,
    budget,
    credits,
    lasted,
    limits,
    moment,
    number,
    prices,
    quantities,
)

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("nano_credits", "written"),
    [
        (0, "0.00"),
        (1, "0.000000001"),
        (-1, "−0.000000001"),
        (10**9, "1.00"),
        (1_500_000_000, "1.50"),
        (1_234_567_000_000_001, "1,234,567.000000001"),
        (2**63 - 1, "9,223,372,036.854775807"),
    ],
)
def test_credits_are_exact(nano_credits: int, written: str) -> None:
    assert credits(nano_credits) == written


def test_prices_are_for_as_many_units_as_people_can_read() -> None:
    assert prices({"output_tokens": 600, "input_tokens": 150, "audio_milliseconds": 100, "pages": 7}) == [
        ("0.15", "per million input tokens"),
        ("0.60", "per million output tokens"),
        ("0.006", "per minute of audio"),
        ("0.000000007", "per unit of pages"),
    ]


@pytest.mark.parametrize(
    ("time", "written"),
    [
        (timedelta(seconds=-5), "less than a minute"),
        (timedelta(seconds=59), "less than a minute"),
        (timedelta(seconds=60), "1 minute"),
        (timedelta(minutes=119), "1 hour"),
        (timedelta(days=2, hours=23), "2 days"),
    ],
)
def test_a_time_is_written_in_its_largest_unit(time: timedelta, written: str) -> None:
    assert lasted(NOON, NOON + time) == written


def test_quantities_and_counts_are_written_for_people() -> None:
    amounts = {"pages": 2, "output_tokens": 8, "input_tokens": 1200, "cached_input_tokens": 1}
    assert quantities(amounts) == "1,200 input tokens, 1 cached input token, 8 output tokens, 2 pages"
    assert quantities({"audio_milliseconds": 61_050}) == "61.050 s of audio"
    assert quantities({}) == ""
    assert number(1_000_000) == "1,000,000"
    assert moment(NOON) == '<time datetime="2026-05-04T12:00:00+00:00">2026-05-04 12:00:00</time>'


def test_what_a_key_may_do_is_written_for_people() -> None:
    assert limits(RateLimits(60, 100_000, 0)) == [
        "60 requests a minute",
        "100,000 tokens a minute",
        "0 at once",
    ]
    assert limits(RateLimits()) == []
    assert budget(Budget(5 * 10**9, "month")) == "5.00 a month"
    assert budget(Budget(1, "total")) == "0.000000001 in total"


def test_a_template_that_is_not_given_what_it_shows_fails() -> None:
    with pytest.raises(UndefinedError):
        Pages().render("overview.html")


def test_nothing_on_a_page_needs_what_its_policy_forbids() -> None:
    for template in (STATIC.parent / "templates").iterdir():
        text = template.read_text()
        assert "style=" not in text
        assert "<style" not in text
        assert "<script>" not in text
        assert "//" not in text.replace("{{", ""), f"{template.name} refers to somewhere else"
