"""Rules for public events."""

from dataclasses import replace
from typing import Any

import pytest

from dozen_events.domain import NewEvent, event_id


def test_a_message_is_told_under_one_id(an_event: NewEvent) -> None:
    identifier = event_id("b0d2c6a4-6c26-4b67-9d3c-8b8a2f0f3c11")
    assert identifier == "evt_b0d2c6a46c264b679d3c8b8a2f0f3c11"
    assert replace(an_event, id=identifier).fault() is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("account_id", ""),
        ("account_id", "ACME"),
        ("id", "evt 1"),
        ("id", "e" * 65),
        ("type", "job"),
        ("type", "job.completed\nevent: other"),
        ("type", "a.b.c.d.e"),
    ],
)
def test_a_field_that_is_not_valid_is_named(an_event: NewEvent, field: str, value: str) -> None:
    assert an_event.fault() is None
    changed: dict[str, Any] = {field: value}
    assert replace(an_event, **changed).fault() == field
