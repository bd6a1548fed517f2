"""What goes wrong on the way of an admitted request."""

from dozen_chassis.errors import ServiceError, Status


class ServiceUnavailable(ServiceError):
    """The service that takes this request does not answer; try again later."""

    status = Status.UNAVAILABLE
    code = "service_unavailable"


class ServiceUnreachable(ServiceUnavailable):
    """The service that takes this request cannot be reached; try again later."""


class ServiceFailed(ServiceUnavailable):
    """The service that takes this request failed to answer it."""

    http_status = 502
    code = "service_failed"


class AnswerBroken(ServiceFailed):
    """The service broke off its answer."""


class ServiceTimeout(ServiceError):
    """The service that takes this request took too long to answer."""

    status = Status.DEADLINE_EXCEEDED
    code = "service_timeout"


class ClientLeft(ServiceError):
    """The client closed the connection before the answer was ready."""

    status = Status.CANCELLED
    code = "client_left"
