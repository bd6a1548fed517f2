"""Errors as facts, and their HTTP form."""

import grpc
import pytest

from dozen_chassis.errors import HTTP_FORMS, TRANSIENT, HttpForm, ServiceError, Status


class OutOfCredits(ServiceError):
    """The account has no credits left."""

    status = Status.RESOURCE_EXHAUSTED
    code = "insufficient_quota"
    type = "insufficient_quota"


class TooLong(ServiceError):
    """The text is too long."""

    status = Status.INVALID_ARGUMENT
    http_status = 413


@pytest.mark.parametrize("status", Status)
def test_each_status_is_one_of_grpcs_and_has_an_http_form(status: Status) -> None:
    assert grpc.StatusCode[status.name].value[0] == status.value
    assert 400 <= HTTP_FORMS[status].status < 600
    assert (HTTP_FORMS[status].type == "server_error") == (HTTP_FORMS[status].status in (500, 503, 504))


def test_what_may_pass_by_itself_is_no_fault_of_the_caller() -> None:
    assert not {HTTP_FORMS[status].status for status in TRANSIENT} & {400, 401, 403, 404, 499, 501}


def test_the_docstring_is_the_message_and_the_body_has_all_four_keys() -> None:
    assert OutOfCredits().body() == {
        "error": {
            "message": "The account has no credits left.",
            "type": "insufficient_quota",
            "param": None,
            "code": "insufficient_quota",
        }
    }


def test_an_error_can_tell_more_of_itself() -> None:
    error = TooLong("900 characters are too many.", param="input", headers={"x-should-retry": "false"})
    assert str(error) == "900 characters are too many."
    assert error.body()["error"] == {
        "message": "900 characters are too many.",
        "type": "invalid_request_error",
        "param": "input",
        "code": None,
    }
    assert error.headers == {"x-should-retry": "false"}


def test_an_error_can_have_a_finer_form_than_its_status() -> None:
    assert TooLong().http == HttpForm(413, "invalid_request_error")
    assert OutOfCredits().http == HttpForm(429, "insufficient_quota")
