"""Errors of leases."""

from dozen_chassis.errors import ServiceError, Status


class InvalidLease(ServiceError):
    """A lease has a holder and at most 10^15 nano-credits; a call that adds to it has a token."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_lease"


class LeaseNotFound(ServiceError):
    """There is no such lease."""

    status = Status.NOT_FOUND
    code = "lease_not_found"
