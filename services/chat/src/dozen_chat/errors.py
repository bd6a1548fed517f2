"""The errors of the chat service."""

from dozen_chassis.errors import ServiceError, Status


class UnknownTaskType(ServiceError):
    """The chat service does not do tasks of this type."""

    status = Status.INVALID_ARGUMENT
    code = "unknown_task_type"
