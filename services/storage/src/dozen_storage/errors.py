"""The errors of the storage service."""

from dozen_chassis.errors import ServiceError, Status


class FileNotFound(ServiceError):
    """There is no such file."""

    status = Status.NOT_FOUND
    code = "file_not_found"


class InvalidUpload(ServiceError):
    """The request must be a multipart form with a `file` and a `purpose`."""

    status = Status.INVALID_ARGUMENT
    code = "invalid_upload"


class StorageQuotaExceeded(ServiceError):
    """The account has no room for this file; delete files that are no longer needed."""

    status = Status.FAILED_PRECONDITION
    http_status = 413
    code = "storage_quota_exceeded"


class TooManyUploads(ServiceError):
    """Too many files are being uploaded; try again later."""

    status = Status.UNAVAILABLE
    code = "too_many_uploads"


class UploadAborted(ServiceError):
    """The upload was not completed: the client left, or took too long."""

    status = Status.CANCELLED
    http_status = 408
    code = "upload_aborted"


class RangeNotSatisfiable(ServiceError):
    """The file does not have the bytes that the range asks for."""

    status = Status.INVALID_ARGUMENT
    http_status = 416
    code = "range_not_satisfiable"


class ObjectStoreUnavailable(ServiceError):
    """Files cannot be reached at the moment; try again later."""

    status = Status.UNAVAILABLE
    code = "object_store_unavailable"
