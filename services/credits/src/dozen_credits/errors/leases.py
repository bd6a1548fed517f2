"""Errors of leases."""

from dozen_chassis.errors import ServiceError, Status


class InvalidLease(ServiceError):
    """A lease has a holder, at most 10^15 nano-credits, a token to add any, and of a budget all fields."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_lease"


class LeaseNotFound(ServiceError):
    """There is no such lease."""

    status = Status.NOT_FOUND
    code = "lease_not_found"
