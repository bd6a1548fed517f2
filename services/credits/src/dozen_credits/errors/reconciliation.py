"""Errors of reconciliations."""

from dozen_chassis.errors import ServiceError, Status


class InvalidReconciliation(ServiceError):
    """A period begins in the last 34 days, lasts at most 31 and ended at least ten seconds ago."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_reconciliation"


class ReconciliationNotFound(ServiceError):
    """There is no such reconciliation."""

    status = Status.NOT_FOUND
    code = "reconciliation_not_found"
