"""Errors as facts: a status, a code and a message; the edges render them."""

from enum import Enum
from typing import ClassVar, NamedTuple


class Status(Enum):
    """Canonical status codes, by gRPC's names and numbers."""

    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class HttpForm(NamedTuple):
    """How a status looks over HTTP: the status code and the `type` of OpenAI's error object."""

    status: int
    type: str


HTTP_FORMS = {
    Status.CANCELLED: HttpForm(499, "invalid_request_error"),
    Status.UNKNOWN: HttpForm(500, "server_error"),
    Status.INVALID_ARGUMENT: HttpForm(400, "invalid_request_error"),
    Status.DEADLINE_EXCEEDED: HttpForm(504, "server_error"),
    Status.NOT_FOUND: HttpForm(404, "invalid_request_error"),
    Status.ALREADY_EXISTS: HttpForm(409, "invalid_request_error"),
    Status.PERMISSION_DENIED: HttpForm(403, "invalid_request_error"),
    Status.RESOURCE_EXHAUSTED: HttpForm(429, "rate_limit_error"),
    Status.FAILED_PRECONDITION: HttpForm(400, "invalid_request_error"),
    Status.ABORTED: HttpForm(409, "invalid_request_error"),
    Status.UNIMPLEMENTED: HttpForm(501, "invalid_request_error"),
    Status.INTERNAL: HttpForm(500, "server_error"),
    Status.UNAVAILABLE: HttpForm(503, "server_error"),
    Status.UNAUTHENTICATED: HttpForm(401, "invalid_request_error"),
}

# Statuses that may pass by themselves; a message whose handler ends in another one is not redelivered.
TRANSIENT = frozenset(
    {Status.UNAVAILABLE, Status.DEADLINE_EXCEEDED, Status.ABORTED, Status.RESOURCE_EXHAUSTED, Status.INTERNAL}
)


class ServiceError(Exception):
    """Something went wrong that the caller should hear of; subclasses state what."""

    status: ClassVar[Status] = Status.INTERNAL
    code: ClassVar[str | None] = None
    http_status: ClassVar[int | None] = None
    """Overrides the table where HTTP has a finer status, such as 413."""
    type: ClassVar[str | None] = None
    """Overrides the table's `type` where OpenAI's clients know a finer one."""

    def __init__(
        self, message: str | None = None, *, param: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        self.message = message or (self.__doc__ or "").strip()
        self.param = param
        self.headers = headers or {}
        super().__init__(self.message)

    @property
    def http(self) -> HttpForm:
        """Give the HTTP status and the error `type` of this error."""
        form = HTTP_FORMS[self.status]
        return HttpForm(self.http_status or form.status, self.type or form.type)

    def body(self) -> dict[str, dict[str, str | None]]:
        """Give OpenAI's error object, all four keys."""
        return error_body(self.message, self.http.type, self.param, self.code)


def error_body(
    message: str, type: str, param: str | None = None, code: str | None = None
) -> dict[str, dict[str, str | None]]:
    """Build OpenAI's error object."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


class InvalidRequest(ServiceError):
    """The request is not valid."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_request"


class BodyTooLarge(ServiceError):
    """The request body is too large."""

    status = Status.INVALID_ARGUMENT
    http_status = 413
    code = "request_too_large"


class NotAdmitted(ServiceError):
    """The request does not carry a valid admission of the gateway; send it to the gateway instead."""

    status = Status.UNAUTHENTICATED
    code = "not_admitted"


class CallerNotTrusted(ServiceError):
    """The gRPC caller's token is missing or not valid for this service."""

    status = Status.UNAUTHENTICATED
    code = "caller_not_trusted"


class DependencyUnavailable(ServiceError):
    """A service that this request needs does not answer; try again later."""

    status = Status.UNAVAILABLE
    code = "dependency_unavailable"


class InternalError(ServiceError):
    """The server had an error while processing your request; its id is in `x-request-id`."""

    code = "internal_error"
