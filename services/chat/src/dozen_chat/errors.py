"""The errors of the chat service."""

from dozen_chassis.errors import ServiceError, Status


class UnknownTaskType(ServiceError):
    """The chat service does not do tasks of this type."""

    status = Status.INVALID_ARGUMENT
    code = "unknown_task_type"


class ResponseNotFound(ServiceError):
    """There is no such response."""

    status = Status.NOT_FOUND
    code = "response_not_found"


class PreviousResponseNotFound(ServiceError):
    """There is no such previous response."""

    status = Status.INVALID_ARGUMENT
    code = "previous_response_not_found"


class ResponseNotCancellable(ServiceError):
    """Cannot cancel a synchronous response; close the connection instead."""

    status = Status.FAILED_PRECONDITION
    code = "response_not_cancellable"


class ConversationNotFound(ServiceError):
    """There is no such conversation."""

    status = Status.NOT_FOUND
    code = "conversation_not_found"


class ConversationLocked(ServiceError):
    """Another response is being given in this conversation; try again when it has ended."""

    status = Status.ABORTED
    code = "conversation_locked"


class ItemNotFound(ServiceError):
    """There is no such item."""

    status = Status.NOT_FOUND
    code = "item_not_found"


class ContextTooLong(ServiceError):
    """The input and what came before it are more than one request may have; start anew with less."""

    status = Status.INVALID_ARGUMENT
    code = "context_length_exceeded"
