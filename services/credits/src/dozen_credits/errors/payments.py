"""Errors of payments."""

from dozen_chassis.errors import ServiceError, Status


class InvalidSignature(ServiceError):
    """The event is not signed with this endpoint's secret, or was signed more than five minutes ago."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_signature"


class InvalidEvent(ServiceError):
    """The event is signed, but does not have the form of its type."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_event"


class TopUpRefused(ServiceError):
    """The payment cannot top up an account as things are; deliver the event again."""

    status = Status.FAILED_PRECONDITION
    http_status = 422
    code = "top_up_refused"


class UnknownPayer(TopUpRefused):
    """The payment is for an account that does not exist."""

    code = "unknown_account"


class UnknownCurrency(TopUpRefused):
    """The payment is in a currency that buys no credits here."""

    code = "unknown_currency"


class TopUpTooLarge(TopUpRefused):
    """The payment buys more than 10^15 nano-credits, which is a mistake."""

    code = "top_up_too_large"
