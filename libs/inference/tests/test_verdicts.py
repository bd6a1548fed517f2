"""What an error says of a deployment, and which of several errors says most."""

import asyncio

import pytest

from dozen_chassis.errors import InvalidRequest, ServiceError
from dozen_inference.formats.refusals import ProviderLimited
from dozen_inference.upstream import (
    UpstreamFailed,
    UpstreamNotReady,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from dozen_inference.verdicts import Verdict, judge, most_telling, rest_seconds, whole_seconds


def refused(status: int) -> UpstreamRefused:
    return UpstreamRefused(status, "no", None, None)


@pytest.mark.parametrize(
    ("error", "verdict", "failed"),
    [
        (UpstreamUnavailable(), Verdict.UNREACHABLE, True),
        (UpstreamTimeout(), Verdict.TIMED_OUT, True),
        (UpstreamFailed(), Verdict.FAILED, True),
        (UpstreamNotReady(), Verdict.FAILED, True),
        (refused(429), Verdict.LIMITED, None),
        (ProviderLimited(), Verdict.LIMITED, None),
        *((refused(status), Verdict.REFUSED, False) for status in (400, 409, 413, 422)),
        *((refused(status), Verdict.ELSEWHERE, False) for status in (404, 405, 408)),
        (InvalidRequest(), Verdict.ELSEWHERE, False),
        (asyncio.CancelledError(), Verdict.LEFT, None),
        (GeneratorExit(), Verdict.LEFT, None),
    ],
    ids=lambda value: getattr(value, "name", None) or repr(value),
)
def test_an_error_is_judged(error: BaseException, verdict: Verdict, failed: bool | None) -> None:
    assert (judge(error), judge(error).failed) == (verdict, failed)


def test_what_never_arrived_is_no_burden() -> None:
    free = {verdict for verdict in Verdict if not verdict.burdened}
    assert free == {Verdict.UNREACHABLE, Verdict.UNKNOWN, Verdict.OPEN, Verdict.FULL}


def test_the_first_of_the_most_telling_errors_is_given() -> None:
    first, second = UpstreamFailed("first"), UpstreamFailed("second")
    ended: list[tuple[Verdict, ServiceError]] = [
        (Verdict.OPEN, UpstreamUnavailable()),
        (Verdict.FAILED, first),
        (Verdict.FAILED, second),
    ]
    assert most_telling(ended) == (Verdict.FAILED, first)
    limited = (Verdict.LIMITED, refused(429))
    assert most_telling([*ended, limited]) == limited


def test_each_verdict_without_an_answer_has_its_rank() -> None:
    silent = {Verdict.ANSWERED, Verdict.REFUSED, Verdict.LEFT}
    for verdict in set(Verdict) - silent:
        assert most_telling([(verdict, UpstreamFailed())])[0] is verdict


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("", 1),
        ("7", 7),
        ("0.5", 0.5),
        ("-1", 1),
        ("9999", 120),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 1),
        ("nan", 1),
    ],
)
def test_a_provider_is_left_alone_as_long_as_it_wants(said: str, seconds: float) -> None:
    error = refused(429)
    if said:
        error.headers["retry-after"] = said
    assert rest_seconds(error) == seconds


def test_retry_after_is_in_whole_seconds() -> None:
    assert [whole_seconds(seconds) for seconds in (0, 0.2, 1, 1.01)] == ["1", "1", "1", "2"]
