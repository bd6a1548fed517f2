"""The errors of the embeddings service."""

from dozen_chassis.errors import ServiceError, Status


class InvalidInput(ServiceError):
    """The input must have 1 to 2048 texts, none of them empty."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_input"


class TextTooLong(ServiceError):
    """The text is longer than what the model reads."""

    status = Status.INVALID_ARGUMENT
    code = "context_length_exceeded"


class TooManyTokens(ServiceError):
    """The texts of this request have too many tokens together."""

    status = Status.INVALID_ARGUMENT
    code = "context_length_exceeded"


class DimensionsNotSupported(ServiceError):
    """The model cannot give vectors of another size."""

    status = Status.INVALID_ARGUMENT
    code = "unsupported_dimensions"


class InvalidModerationInput(ServiceError):
    """The input must have 1 to 32 texts of 60,000 characters together at most; this model reads no images."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_input"
