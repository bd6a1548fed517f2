"""What goes wrong with a job that exists, or does not."""

from dozen_chassis.errors import ServiceError, Status


class JobNotFound(ServiceError):
    """There is no such job."""

    status = Status.NOT_FOUND
    code = "job_not_found"


class JobAlreadyFinished(ServiceError):
    """The job has finished; it cannot be cancelled."""

    status = Status.FAILED_PRECONDITION
    http_status = 409
    code = "job_already_finished"


class InvalidReport(ServiceError):
    """A worker reports a task as running, succeeded or failed, and nothing else."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_report"
