"""The errors of the models service."""

from dozen_chassis.errors import ServiceError, Status


class ModelNotFound(ServiceError):
    """The model does not exist."""

    status = Status.NOT_FOUND
    code = "model_not_found"


class InvalidSeed(ServiceError):
    """The seed file is not valid."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_seed"
