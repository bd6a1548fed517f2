"""Rules for signing in."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from dozen_admin.domain.accounts import Account
from dozen_admin.domain.keys import ApiKey, KeyTerms
from dozen_admin.domain.staff import form_token, is_staff, seconds_to_wait, session_key

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("user", "password", "right"),
    [
        ("admin", "correct horse", True),
        ("admin", "correct horse ", False),
        ("admin", "", False),
        ("Admin", "correct horse", False),
        ("ädmin", "correct horse", False),
        ("admin", "\ud800", False),
    ],
)
def test_only_the_right_name_and_password_are_staff(user: str, password: str, right: bool) -> None:
    assert is_staff(user, password, "correct horse") is right


def test_a_session_is_kept_under_a_key_that_depends_on_the_token_and_the_password() -> None:
    assert len({session_key("a", "p"), session_key("b", "p"), session_key("a", "q")}) == 3
    assert session_key("a", "p") == session_key("a", "p")


def test_the_token_of_a_form_does_not_tell_that_of_the_session() -> None:
    assert form_token("a") != form_token("b")
    assert "a" * 43 not in form_token("a" * 43)


def test_the_sixth_attempt_waits_until_a_minute_after_the_first() -> None:
    failures = [NOON + timedelta(seconds=second) for second in (0, 10, 20, 30, 40)]
    assert seconds_to_wait(failures[:4], NOON + timedelta(seconds=45)) == 0
    assert seconds_to_wait(failures, NOON + timedelta(seconds=45)) == 15
    assert seconds_to_wait([*failures, NOON + timedelta(seconds=44)], NOON + timedelta(seconds=45)) == 25
    assert seconds_to_wait(failures, NOON + timedelta(seconds=60)) == 0


@pytest.mark.parametrize(
    ("account", "alert"),
    [
        (Account("acme"), ""),
        (Account("acme", available=6, leased=4, low_below=10), ""),
        (Account("acme", available=0, leased=9, low_below=10), "low"),
        (Account("acme", low_below=10), "exhausted"),
        (Account("acme", low_below=1), "exhausted"),
    ],
)
def test_an_account_is_low_where_it_has_less_than_announced(account: Account, alert: str) -> None:
    assert account.alert == alert


def test_a_key_is_active_until_it_expires_or_is_revoked() -> None:
    key = ApiKey("key1", "acme", KeyTerms("laptop"), NOON, expires_at=NOON + timedelta(hours=1))
    rotated = replace(key, previous_secret_expires_at=NOON + timedelta(minutes=1))
    assert (key.state(NOON), key.is_rotating(NOON)) == ("active", False)
    assert (rotated.state(NOON), rotated.is_rotating(NOON)) == ("active", True)
    assert not rotated.is_rotating(NOON + timedelta(minutes=1))
    assert key.state(NOON + timedelta(hours=1)) == "expired"
    revoked = replace(rotated, revoked_at=NOON)
    assert (revoked.state(NOON), revoked.is_rotating(NOON)) == ("revoked", False)
