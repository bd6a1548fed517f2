"""The errors of the admin service."""

from dozen_chassis.errors import ServiceError, Status


class NotSignedIn(ServiceError):
    """Sign in first; there is no session, or it has ended."""

    status = Status.UNAUTHENTICATED
    code = "not_signed_in"


class SignInNeeded(NotSignedIn):
    """Sign in to see this page."""

    http_status = 303  # a browser is shown the way


class WrongPassword(ServiceError):
    """The user name or the password is not right."""

    status = Status.UNAUTHENTICATED
    code = "wrong_password"


class TooManyFailures(ServiceError):
    """Too many failed attempts to sign in from this address; wait a minute."""

    status = Status.RESOURCE_EXHAUSTED
    code = "too_many_failures"


class FormExpired(ServiceError):
    """This form is no longer valid; open the page again and retry."""

    status = Status.PERMISSION_DENIED
    code = "form_expired"


class AccountNotFound(ServiceError):
    """There is no such account, or it has not been heard of yet."""

    status = Status.NOT_FOUND
    code = "account_not_found"
