"""What goes wrong on the way of an admitted request."""

from dozen_chassis.errors import ServiceError, Status


class ServiceUnavailable(ServiceError):
    """The service that takes this request does not answer; try again later."""

    status = Status.UNAVAILABLE
    code = "service_unavailable"


class ServiceUnreachable(ServiceUnavailable):
    """The service that takes this request cannot be reached; try again later."""


class ClientLeft(ServiceError):
    """The client closed the connection before the answer was ready."""

    status = Status.CANCELLED
    code = "client_left"
