"""Why there is no decision, or none that admits."""

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


class NotLoaded(ServiceError):
    """The keys and accounts have not been read from the database yet."""

    status = Status.UNAVAILABLE
    code = "not_loaded"


class CreditsUnavailable(ServiceError):
    """The credits service does not answer."""

    status = Status.UNAVAILABLE
    code = "credits_unavailable"


class LimitsUnavailable(ServiceError):
    """The limits of this request cannot be counted at the moment."""

    status = Status.UNAVAILABLE
    code = "limits_unavailable"
