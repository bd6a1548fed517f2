"""Errors of the ledger."""

from dozen_chassis.errors import ServiceError, Status


class LedgerUnavailable(ServiceError):
    """The ledger cannot be changed right now; the same call may be made again."""

    status = Status.UNAVAILABLE
    code = "ledger_unavailable"
