"""The errors of the events service."""

from dozen_chassis.errors import ServiceError, Status


class EventNotFound(ServiceError):
    """There is no such event, or no longer."""

    status = Status.NOT_FOUND
    code = "event_not_found"


class InvalidEvent(ServiceError):
    """The event is not valid."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_event"


class TooManyStreams(ServiceError):
    """Too many event streams are open; close one or try again later."""

    status = Status.RESOURCE_EXHAUSTED
    code = "too_many_streams"
