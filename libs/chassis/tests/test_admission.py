"""What the gateway signs is accepted, and nothing else."""

import pytest

from dozen_chassis.admission import Admission, verify
from dozen_chassis.errors import NotAdmitted

KEY = bytes(range(32))
NOW = 1_800_000_000.0
OPERATION = "POST /v1/chat/completions"
ADMISSION = Admission("acme", "key1", "req_1", OPERATION, {"model": "smollm2", "price": "price-1"})
HEADERS = ADMISSION.headers(KEY, int(NOW) + 60)


def test_what_was_signed_is_read_again() -> None:
    assert verify(HEADERS, OPERATION, KEY, NOW) == ADMISSION


def test_an_admission_without_facts_is_one() -> None:
    bare = Admission("acme", "key1", "req_1", OPERATION)
    assert verify(bare.headers(KEY, int(NOW)), OPERATION, KEY, NOW) == bare


def test_headers_of_the_client_do_not_matter() -> None:
    headers = {"user-agent": "curl", "authorization": "Bearer x", "dozen-model": "other", **HEADERS}
    assert verify(headers, OPERATION, KEY, NOW) == ADMISSION


@pytest.mark.parametrize("name", sorted(HEADERS))
def test_no_header_can_be_changed_or_left_out(name: str) -> None:
    with pytest.raises(NotAdmitted):
        verify({**HEADERS, name: HEADERS[name] + "0"}, OPERATION, KEY, NOW)
    with pytest.raises(NotAdmitted):
        verify({**HEADERS, name: ""}, OPERATION, KEY, NOW)
    with pytest.raises(NotAdmitted):
        verify({key: value for key, value in HEADERS.items() if key != name}, OPERATION, KEY, NOW)


def test_no_header_can_be_added() -> None:
    with pytest.raises(NotAdmitted):
        verify({**HEADERS, "x-dozen-discount": "100"}, OPERATION, KEY, NOW)


def test_a_value_cannot_swallow_the_header_that_follows_it() -> None:
    admission = Admission("acme", "key1", "req_1", OPERATION, {"plan": "free", "price": "price-1"})
    headers = admission.headers(KEY, int(NOW) + 60)
    headers["x-dozen-plan"] += f"\nx-dozen-price:{headers.pop('x-dozen-price')}"
    with pytest.raises(NotAdmitted):
        verify(headers, OPERATION, KEY, NOW)


def test_the_end_of_an_admission_is_signed_too() -> None:
    _, signature = HEADERS["x-dozen-admission"].split(".")
    with pytest.raises(NotAdmitted):
        verify({**HEADERS, "x-dozen-admission": f"{int(NOW) + 9999}.{signature}"}, OPERATION, KEY, NOW)


def test_an_admission_expires() -> None:
    verify(HEADERS, OPERATION, KEY, NOW + 60)
    with pytest.raises(NotAdmitted, match="expired"):
        verify(HEADERS, OPERATION, KEY, NOW + 61)


def test_an_admission_is_for_one_operation() -> None:
    with pytest.raises(NotAdmitted, match="another operation"):
        verify(HEADERS, "POST /v1/completions", KEY, NOW)


def test_an_admission_is_for_one_receiver() -> None:
    with pytest.raises(NotAdmitted):
        verify(HEADERS, OPERATION, bytes(32), NOW)


@pytest.mark.parametrize("value", ["", ".", "1.", ".ab", "soon.ab", f"{'9' * 5000}.ab", "1.\udcff", "٣.é"])
def test_what_is_no_signature_is_refused(value: str) -> None:
    with pytest.raises(NotAdmitted):
        verify({**HEADERS, "x-dozen-admission": value}, OPERATION, KEY, NOW)


def test_a_request_without_any_header_is_refused() -> None:
    with pytest.raises(NotAdmitted):
        verify({}, OPERATION, KEY, NOW)
