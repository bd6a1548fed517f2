"""Errors of invoices and statements."""

from dozen_chassis.errors import ServiceError, Status


class InvoiceNotFound(ServiceError):
    """There is no invoice for this month; `GET /v1/invoices` lists those that there are."""

    status = Status.NOT_FOUND
    code = "invoice_not_found"


class StatementTooLong(ServiceError):
    """This statement has too many movements for one answer; read it with `format=csv`."""

    status = Status.FAILED_PRECONDITION
    code = "statement_too_long"
