"""The errors of providers, as a client of OpenAI's API understands them.

What is between the provider and us is never told to callers: our key, our bill, a model's name there.
"""

import logging

from dozen_chassis.errors import InvalidRequest, ServiceError, Status
from dozen_inference.upstream import UpstreamFailed, UpstreamNotReady, UpstreamRefused, UpstreamTimeout

log = logging.getLogger(__name__)

CONTEXT_LENGTH = "context_length_exceeded"
CONTENT_FILTER = "content_filter"

# Our credentials, our bill, and how the model is called there.
_OURS = (401, 402, 403, 404, 405)


class NotSupported(InvalidRequest):
    """The provider of this model cannot do what the request asks for."""

    code = "unsupported_parameter"

    def __init__(self, param: str, why: str) -> None:
        super().__init__(f"The provider of this model cannot honour '{param}': {why}.", param=param)


class ProviderLimited(ServiceError):
    """The provider of this model takes no more requests at the moment; try again later."""

    status = Status.RESOURCE_EXHAUSTED
    code = "rate_limit_exceeded"


def with_retry_after(error: ServiceError, retry_after: str) -> ServiceError:
    """Add when to try again, where the error may pass and the provider says so."""
    if retry_after and error.http.status in (429, 503):
        error.headers["retry-after"] = retry_after
    return error


def provider_error(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    retry_after: str = "",
    ours: bool = False,
) -> ServiceError:
    """Give the error for an answer with this status; `ours` says that the caller has no part in it."""
    if status == 429:
        log.warning("a provider limits us: %s", message[:500])
        return with_retry_after(ProviderLimited(), retry_after)
    if status in (408, 504):
        return UpstreamTimeout()
    if ours or status in _OURS or not 400 <= status < 500:
        log.warning("a provider failed with %d: %s", status, message[:500])
        ready = status not in (503, 529)
        return UpstreamFailed() if ready else with_retry_after(UpstreamNotReady(), retry_after)
    if status == 413:
        code = code or "request_too_large"
    return UpstreamRefused(status, message or UpstreamRefused.__doc__ or "", param, code)


def filtered(message: str) -> ServiceError:
    """Give the error for a prompt that the provider's own filter has refused."""
    return UpstreamRefused(400, message, None, CONTENT_FILTER)
