"""Rules of submissions, and the states of a job."""

import itertools
import json
from datetime import UTC, datetime, timedelta

import pytest

from dozen_jobs.domain.jobs import (
    MAX_RESULT_BYTES,
    Job,
    JobError,
    Report,
    Status,
    advance,
    checked,
    is_job_id,
    new_job_id,
)
from dozen_jobs.domain.submissions import (
    MAX_PARAMETERS_BYTES,
    Facts,
    Priority,
    Submission,
    facts,
    faults,
    fingerprint,
    read_parameters,
)

CREATED = datetime(2026, 1, 1, tzinfo=UTC)
QUEUED = Job(
    "job_1", "acme", "key1", "req_1", "chat.completions", Priority.STANDARD, None, 3, 120, CREATED
)  # fmt: skip


def report(status: Status, attempt: int, seconds: int) -> Report:
    at = CREATED + timedelta(seconds=seconds)
    error = JobError("server_error", "broken", "It broke.") if status is Status.FAILED else None
    result = b"{}" if status is Status.SUCCEEDED else None
    return Report("job_1", status, attempt, at, result, error)


def submission(parameters: object = None, **fields: object) -> Submission:
    body = {"model": "m"} if parameters is None else parameters
    return Submission("chat.completions", json.dumps(body).encode(), **fields)  # type: ignore[arg-type]


def faulty(wanted: Submission) -> list[str]:
    parameters = read_parameters(wanted.parameters)
    assert parameters is not None
    return [fault.param for fault in faults(wanted, parameters)]


@pytest.mark.parametrize("last", [Status.SUCCEEDED, Status.FAILED])
def test_in_whatever_order_and_however_often_reports_come_the_job_ends_the_same(last: Status) -> None:
    first, second, end = report(Status.RUNNING, 1, 5), report(Status.RUNNING, 2, 9), report(last, 2, 12)
    for order in itertools.permutations([first, first, second, end, end]):
        job, changes = QUEUED, 0
        for one in order:
            was, job = job, advance(job, one)
            changes += job.finished and not was.finished
            assert not was.finished or job == was
        assert changes == 1
        assert (job.status, job.attempts, job.finished_at, job.error) == (last, 2, end.at, end.error)


def test_the_first_of_two_last_words_stands() -> None:
    words = [report(Status.SUCCEEDED, 1, 5), report(Status.FAILED, 2, 6)]
    for order in itertools.permutations(words):
        job = QUEUED
        for one in order:
            job = advance(job, one)
        assert job.status is order[0].status


def test_a_job_started_when_its_first_attempt_did() -> None:
    job = advance(advance(QUEUED, report(Status.RUNNING, 1, 5)), report(Status.RUNNING, 2, 9))
    assert job.started_at == CREATED + timedelta(seconds=5)
    assert job.status is Status.RUNNING


def test_a_job_expires_after_the_wait_and_all_its_attempts() -> None:
    assert QUEUED.expires_at == CREATED + timedelta(hours=24, seconds=4 * 120)


@pytest.mark.parametrize(
    ("result", "code"),
    [
        (b"", "invalid_result"),
        (b"{", "invalid_result"),
        (b'{"a": NaN}', "invalid_result"),
        (b"[" * 100_000, "invalid_result"),
        (b'"' + b"a" * (MAX_RESULT_BYTES - 1) + b'"', "result_too_large"),
    ],
)
def test_a_result_that_cannot_be_kept_is_a_failure(result: bytes, code: str) -> None:
    kept = checked(Report("job_1", Status.SUCCEEDED, 1, CREATED, result))
    assert kept.status is Status.FAILED
    assert kept.result is None
    assert kept.error is not None
    assert kept.error.code == code


def test_a_result_of_the_greatest_size_is_kept() -> None:
    result = b'"' + b"a" * (MAX_RESULT_BYTES - 2) + b'"'
    assert checked(Report("job_1", Status.SUCCEEDED, 1, CREATED, result)).result == result


def test_what_a_worker_tells_of_a_failure_is_complete_and_bounded() -> None:
    assert JobError.told("", "", "") == JobError("server_error", "task_failed", "The task failed.")
    assert JobError.told("a\0b", "c", "d" * 2000) == JobError("ab", "c", "d" * 1000)


def test_job_ids_are_told_from_other_texts() -> None:
    assert is_job_id(new_job_id())
    assert not any(map(is_job_id, ["", "job_1", "job_" + "0" * 31 + "\0", new_job_id() + "\n"]))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_retries", -1),
        ("max_retries", 11),
        ("timeout_seconds", 0),
        ("timeout_seconds", 3601),
        ("callback_url", ""),
        ("callback_url", "ftp://example.com/"),
        ("callback_url", "https://"),
        ("callback_url", "https://user@example.com/"),
        ("callback_url", "https://example.com/a b"),
        ("callback_url", "https://example.com/\n"),
        ("callback_url", "https://example.com/" + "a" * 2048),
    ],
)
def test_a_field_out_of_bounds_is_named(field: str, value: object) -> None:
    assert faulty(submission(**{field: value})) == [field]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stream", True),
        ("stream", "no"),
        ("model", None),
        ("model", ""),
        ("model", "m" * 257),
        ("max_tokens", 0),
        ("max_tokens", "12"),
        ("max_tokens", True),
        ("max_completion_tokens", 2**31),
        ("n", 1.5),
    ],
)
def test_a_parameter_that_cannot_be_decided_on_is_named(field: str, value: object) -> None:
    assert faulty(submission({"model": "m", field: value})) == [f"parameters.{field}"]


def test_parameters_beyond_the_limit_are_refused() -> None:
    padding = "a" * MAX_PARAMETERS_BYTES
    assert faulty(submission({"model": "m", "padding": padding})) == ["parameters"]


def test_the_bounds_themselves_are_valid() -> None:
    url = "https://[2001:db8::1]:8443/hook?token=a%20b#c"
    assert not faulty(submission(max_retries=0, timeout_seconds=1, callback_url=url))
    assert not faulty(submission(max_retries=10, timeout_seconds=3600, callback_url="HTTP://localhost"))
    assert not faulty(submission({"model": "m", "stream": None, "max_tokens": None, "n": 2**31 - 1}))


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"a": NaN}', b'{"a": "\\ud800"}', b'{"a": "\xff"}'])
def test_parameters_are_strict_json(text: bytes) -> None:
    assert read_parameters(text) is None


def test_the_gateway_is_told_the_endpoint_and_what_counts() -> None:
    wanted = submission({"model": "m", "max_tokens": 5, "max_completion_tokens": 7, "n": 2})
    assert facts(wanted, read_parameters(wanted.parameters) or {}) == Facts(
        "POST", "/v1/chat/completions", len(wanted.parameters), "m", 7, 2
    )


def test_equal_submissions_have_one_fingerprint_and_others_have_others() -> None:
    one = submission({"model": "m", "n": 1})
    others = [
        submission({"model": "m", "n": 2}),
        submission({"model": "m", "n": 1}, priority=Priority.LOW),
        submission({"model": "m", "n": 1}, callback_url="https://example.com"),
        submission({"model": "m", "n": 1}, max_retries=4),
        submission({"model": "m", "n": 1}, timeout_seconds=121),
    ]
    marks = {fingerprint(each, json.loads(each.parameters)) for each in [one, *others]}
    assert len(marks) == 6
    assert fingerprint(submission({"n": 1, "model": "m"}), {"n": 1, "model": "m"}) in marks
