"""The errors of the gateway."""

from dozen_chassis.errors import ServiceError, Status
from dozen_gateway.domain.rejections import Rejection


class Rejected(ServiceError):
    """The request is not admitted."""

    def __init__(self, rejection: Rejection) -> None:
        super().__init__(rejection.message, param=rejection.param, headers=dict(rejection.headers))
        # Facts of this one rejection, not of the class.
        self.http_status = rejection.http_status  # type: ignore[misc]
        self.type = rejection.type  # type: ignore[misc]
        self.code = rejection.code  # type: ignore[misc]


class InvalidAccountId(ServiceError):
    """An account id has 1 to 32 lower-case letters and digits."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_account_id"


class TooManyKeys(ServiceError):
    """The account has as many keys as an account may have; delete one first."""

    status = Status.FAILED_PRECONDITION
    code = "too_many_keys"


class KeyNotFound(ServiceError):
    """There is no such key."""

    status = Status.NOT_FOUND
    code = "key_not_found"


class ServiceUnavailable(ServiceError):
    """The service that takes this request does not answer; try again later."""

    status = Status.UNAVAILABLE
    code = "service_unavailable"


class ClientLeft(ServiceError):
    """The client closed the connection before the answer was ready."""

    status = Status.CANCELLED
    code = "client_left"


class NotLoaded(ServiceError):
    """The keys and accounts have not been read from the database yet."""

    status = Status.UNAVAILABLE
    code = "not_loaded"
