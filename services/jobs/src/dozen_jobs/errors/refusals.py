"""The gateway's refusal, as it is passed on."""

from collections.abc import Mapping

from dozen_chassis.errors import HTTP_FORMS, ServiceError, Status


class SubmissionRefused(ServiceError):
    """The gateway does not admit this job; the answer is what a request for the same work would get."""

    def __init__(
        self,
        http_status: int,
        type: str,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, param=param, headers=dict(headers or {}))
        statuses = (status for status, form in HTTP_FORMS.items() if form.status == http_status)
        self.status = next(statuses, Status.FAILED_PRECONDITION)  # type: ignore[misc]  # facts of this
        self.http_status = http_status  # type: ignore[misc]  # one refusal, not of the class
        self.type = type  # type: ignore[misc]
        self.code = code or None  # type: ignore[misc]
