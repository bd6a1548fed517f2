"""Errors of accounts and of what is posted to them."""

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


class InvalidCorrection(ServiceError):
    """A correction is at most 10^15 nano-credits and has a key, a reason and an actor."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_correction"


class IdempotencyKeyReused(ServiceError):
    """This idempotency key was used for something else."""

    status = Status.ALREADY_EXISTS
    code = "idempotency_key_reused"


class InsufficientBalance(ServiceError):
    """The account has less available than is to be taken."""

    status = Status.FAILED_PRECONDITION
    code = "insufficient_balance"
