"""Derived keys, and the tokens of callers."""

import pytest

from dozen_chassis.signing import caller_token, derive_key, verify_caller

KEY = bytes(32)


def test_each_purpose_has_its_own_key() -> None:
    keys = {derive_key(master, purpose) for master in (b"1", b"2") for purpose in ("admission:chat", "grpc")}
    assert len(keys) == 4
    assert {len(key) for key in keys} == {32}
    assert derive_key(b"1", "grpc") in keys


def test_a_token_tells_who_calls() -> None:
    assert verify_caller(KEY, caller_token(KEY, "jobs")) == "jobs"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "jobs",
        "jobs.",
        ".",
        caller_token(KEY, "jobs")[:-1],
        "chat." + caller_token(KEY, "jobs")[5:],
        "é.é",
    ],
)
def test_a_made_up_token_is_refused(token: str) -> None:
    assert verify_caller(KEY, token) is None


def test_a_token_is_for_one_callee() -> None:
    assert verify_caller(KEY, caller_token(b"another", "jobs")) is None
