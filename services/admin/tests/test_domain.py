"""Rules for signing in."""

from datetime import UTC, datetime, timedelta

import pytest

from dozen_admin.domain import form_token, is_staff, seconds_to_wait, session_key

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
