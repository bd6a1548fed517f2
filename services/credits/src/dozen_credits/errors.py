"""The errors of the credits service."""

from dozen_chassis.errors import ServiceError, Status


class AccountNotFound(ServiceError):
    """There is no such account."""

    status = Status.NOT_FOUND
    code = "account_not_found"


class InvalidAccount(ServiceError):
    """An account's id is 1 to 32 lower-case letters and digits; its name has at most 200 characters."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_account"


class InvalidGrant(ServiceError):
    """A grant is 1 to 10^15 nano-credits under a key of 1 to 255 characters, for a reason of at most 500."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_grant"


class IdempotencyKeyReused(ServiceError):
    """This idempotency key was used for a grant of another amount or to another account."""

    status = Status.ALREADY_EXISTS
    code = "idempotency_key_reused"


class InvalidPrice(ServiceError):
    """A price has an id, and no unit of it costs less than nothing."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_price"


class PriceNotKnown(ServiceError):
    """The price of this usage has not been announced yet."""

    status = Status.UNAVAILABLE
    code = "price_not_known"


class InvalidPeriod(ServiceError):
    """The period must end after it starts."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_period"


class UnknownCursor(ServiceError):
    """There is no such item to continue after."""

    status = Status.INVALID_ARGUMENT
    code = "unknown_cursor"
