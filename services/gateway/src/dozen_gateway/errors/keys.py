"""What goes wrong with API keys."""

from dozen_chassis.errors import ServiceError, Status


class InvalidAccountId(ServiceError):
    """An account id has 1 to 32 lower-case letters and digits."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_account_id"


class KeyNotFound(ServiceError):
    """There is no such key, or it is revoked."""

    status = Status.NOT_FOUND
    code = "key_not_found"


class TooManyKeys(ServiceError):
    """The account has as many keys as an account may have; delete one first."""

    status = Status.FAILED_PRECONDITION
    code = "too_many_keys"


class InsufficientPermissions(ServiceError):
    """You have insufficient permissions: a key with scopes, limits, a budget or an expiry changes no keys."""

    status = Status.PERMISSION_DENIED
    code = "insufficient_permissions"


class InvalidIdempotencyKey(ServiceError):
    """An idempotency key has 1 to 255 printable ASCII characters."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_idempotency_key"


class IdempotencyKeyReused(ServiceError):
    """This idempotency key was used for another request within the last 24 hours."""

    status = Status.INVALID_ARGUMENT
    code = "idempotency_key_reused"


class AnswerLost(ServiceError):
    """The secret that this idempotency key was answered with cannot be told again; use another one."""

    status = Status.FAILED_PRECONDITION
    code = "answer_lost"
