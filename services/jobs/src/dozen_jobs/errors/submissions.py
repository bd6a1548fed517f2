"""What goes wrong with a submission."""

from dozen_chassis.errors import ServiceError, Status


class InvalidJob(ServiceError):
    """The job is not valid."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_job"


class UnknownTaskType(ServiceError):
    """There is no such task type."""

    status = Status.INVALID_ARGUMENT
    code = "unknown_task_type"


class InvalidIdempotencyKey(ServiceError):
    """An idempotency key has 1 to 255 printable ASCII characters."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_idempotency_key"


class IdempotencyKeyReused(ServiceError):
    """This idempotency key was used for another job within the last 24 hours."""

    status = Status.ALREADY_EXISTS
    code = "idempotency_key_reused"


class TooManyJobs(ServiceError):
    """Too many jobs of this account are unfinished; submit more when some have finished."""

    status = Status.RESOURCE_EXHAUSTED
    code = "too_many_jobs"


class KeyOfAnotherAccount(ServiceError):
    """The API key belongs to another account than the job."""

    status = Status.PERMISSION_DENIED
    code = "key_of_another_account"
