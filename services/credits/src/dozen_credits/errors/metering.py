"""Errors of prices, and of usage that is charged and refunded."""

from dozen_chassis.errors import ServiceError, Status


class InvalidPrice(ServiceError):
    """A price has an id, and no unit of it costs less than nothing."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_price"


class PriceNotKnown(ServiceError):
    """The price of this usage has not been announced yet."""

    status = Status.UNAVAILABLE
    code = "price_not_known"


class RequestNotFound(ServiceError):
    """No such request was charged."""

    status = Status.NOT_FOUND
    code = "request_not_found"


class NothingToRefund(ServiceError):
    """The request paid less than this refund and those before it."""

    status = Status.FAILED_PRECONDITION
    code = "nothing_to_refund"
