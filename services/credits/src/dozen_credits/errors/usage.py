"""Errors of reading usage."""

from dozen_chassis.errors import ServiceError, Status


class InvalidPeriod(ServiceError):
    """The period must end after it starts."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_period"


class UnknownCursor(ServiceError):
    """There is no such item to continue after."""

    status = Status.INVALID_ARGUMENT
    code = "unknown_cursor"
