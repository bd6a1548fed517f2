"""What follows from what callers see of a deployment."""

import pytest

from dozen_models.domain.health import Health
from dozen_models.domain.sightings import TRUSTED_SECONDS, Breaker, Finding, Observation, Sightings, find, see

CLOSED, OPEN, HALF_OPEN = Breaker.CLOSED, Breaker.OPEN, Breaker.HALF_OPEN
Told = tuple[float, Observation]


def told(
    at: float, breaker: Breaker, ended: int = 0, failed: int = 0, by: str = "a", requests: int = 0
) -> Told:
    return at, Observation(by, breaker, requests, ended, failed)


def found(*observations: Told) -> Finding | None:
    known: Sightings = {}
    for at, observation in observations:
        known = see(known, observation, at)
    return find(known)


def test_an_open_breaker_makes_it_unhealthy_and_says_how_many_failed() -> None:
    assert found(told(0, CLOSED, 4, 2), told(1, OPEN, 5, 5)) == Finding(
        Health.UNHEALTHY, "7 of 9 requests failed"
    )


def test_what_failed_is_remembered_while_the_breaker_is_open() -> None:
    seconds = range(1, 61)
    reason = "9 of 9 requests failed"
    assert found(told(0, OPEN, 9, 9), *(told(s, OPEN) for s in seconds)) == Finding(Health.UNHEALTHY, reason)


def test_what_a_newcomer_did_not_hear_it_does_not_say() -> None:
    assert found(told(0, OPEN)) == Finding(Health.UNHEALTHY, "its callers let no request pass")


@pytest.mark.parametrize(
    ("other", "health"),
    [
        (told(0, OPEN, 1, 1, by="b"), Health.UNHEALTHY),
        (told(0, CLOSED, 3, 0, by="b"), Health.HEALTHY),
        (told(0, HALF_OPEN, by="b"), Health.UNKNOWN),
        (told(0, CLOSED, by="b"), Health.UNHEALTHY),  # it sends nothing, and so knows nothing
    ],
)
def test_all_that_send_requests_have_to_agree(other: Told, health: Health) -> None:
    finding = found(other, told(0, OPEN, 5, 5))
    assert finding is not None
    assert finding.health is health


def test_one_whose_requests_have_not_ended_yet_sends_some_too() -> None:
    assert found(told(0, CLOSED, by="b", requests=1), told(0, OPEN, 5, 5)) is None


def test_a_breaker_that_is_half_open_or_closed_again_counts_as_such() -> None:
    assert found(told(0, OPEN, 5, 5), told(1, HALF_OPEN)) == Finding(
        Health.UNKNOWN, "it is being tried again"
    )
    assert found(told(0, OPEN, 5, 5), told(1, HALF_OPEN), told(2, CLOSED, 1)) == Finding(
        Health.HEALTHY, "1 of 6 requests succeeded"
    )


def test_one_who_is_silent_is_forgotten() -> None:
    last = TRUSTED_SECONDS - 0.1
    assert found(told(0, OPEN, 5, 5, by="b"), told(last, OPEN, 1, 1)) == Finding(
        Health.UNHEALTHY, "6 of 6 requests failed"
    )
    assert found(told(0, OPEN, 5, 5, by="b"), told(TRUSTED_SECONDS, CLOSED, 2)) == Finding(
        Health.HEALTHY, "2 of 2 requests succeeded"
    )


def test_what_ended_long_ago_says_nothing() -> None:
    assert found(told(0, CLOSED, 2), told(TRUSTED_SECONDS, CLOSED)) is None


def test_failures_alone_say_nothing_before_the_breaker_opens() -> None:
    assert found(told(0, CLOSED, 2, 2)) is None
