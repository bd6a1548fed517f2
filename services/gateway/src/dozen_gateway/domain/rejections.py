"""Why a request is refused, in the words of OpenAI's API."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from dozen_gateway.domain.limits import Exceeded

_SHOWN_CHARACTERS = 100
_RETRY_SECONDS = (2.0, 8.0)
"""Longer than a hiccup, and well within the two minutes for which clients wait at all."""

WRONG_KEY = "invalid_api_key"


@dataclass(frozen=True, slots=True)
class Rejection:
    """A refusal: the answer that the client gets."""

    http_status: int
    code: str
    message: str
    type: str = "invalid_request_error"
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


def unknown_url(method: str, path: str) -> Rejection:
    """Say that nothing is served there."""
    return Rejection(404, "unknown_url", f"Invalid URL ({method} {_shown(path)}).")


def method_not_allowed(method: str, path: str, allowed: Collection[str]) -> Rejection:
    """Say that the path is served, but not by this method."""
    headers = {"allow": ", ".join(sorted(allowed))}
    return Rejection(
        405, "method_not_allowed", f"Not allowed to {method} on {_shown(path)}.", headers=headers
    )


def not_ready() -> Rejection:
    """Say that the gateway does not know its keys and accounts yet."""
    message = "The gateway is starting and cannot decide on requests yet; try again in a moment."
    return _unavailable("not_ready", message, seconds=1)


def state_too_old() -> Rejection:
    """Say that the gateway has not heard from its database for too long to trust what it knew."""
    message = "The gateway cannot reach its database and does not decide any more; try again later."
    return _unavailable("state_too_old", message, seconds=5)


def no_api_key() -> Rejection:
    """Say that the request names no API key."""
    return Rejection(
        401,
        WRONG_KEY,
        "You didn't provide an API key. You need to provide your API key in an Authorization header using"
        " Bearer auth (i.e. Authorization: Bearer YOUR_KEY).",
    )


def wrong_api_key(masked: str) -> Rejection:
    """Say that there is no such key, or no more; which of the two is nobody's business."""
    return Rejection(401, WRONG_KEY, f"Incorrect API key provided: {masked}.")


def endpoint_not_allowed(method: str, pattern: str) -> Rejection:
    """Say that the key is for other endpoints."""
    return Rejection(
        403,
        "insufficient_permissions",
        f"You have insufficient permissions: this key may not {method} {pattern}.",
    )


def no_model() -> Rejection:
    """Say that the body names no model."""
    return Rejection(400, "missing_required_parameter", "You must provide a model parameter.", param="model")


def unknown_model(model: str) -> Rejection:
    """Say that the catalogue has no such model."""
    return _model_not_found(f"The model `{_shown(model)}` does not exist or you do not have access to it.")


def model_not_allowed(model: str) -> Rejection:
    """Say that the key is for other models."""
    message = f"This key does not have access to the model `{model}`."
    return Rejection(403, "model_not_found", message, param="model")


def model_cannot(model: str, operation: str, serves: Sequence[str]) -> Rejection:
    """Say that the model is for other endpoints."""
    return _model_not_found(
        f"The model `{model}` does not serve {operation}; it serves {', '.join(serves) or 'no endpoint'}."
    )


def no_price(model: str) -> Rejection:
    """Say that the model has no price; what cannot be charged is not served."""
    return _unavailable("model_unavailable", f"The model `{model}` has no price at the moment.", seconds=5)


def insufficient_quota() -> Rejection:
    """Say that the account has no credits; retrying does not help."""
    return Rejection(
        429,
        "insufficient_quota",
        "You exceeded your current quota: the account has no credits left. Add credits to go on.",
        type="insufficient_quota",
        headers={"x-should-retry": "false"},
    )


def no_budget() -> Rejection:
    """Say that either the account or the budget of the key does not pay for the request."""
    return Rejection(
        429,
        "budget_exceeded",
        "You exceeded your current quota: the key's budget or the account has too little left.",
        type="insufficient_quota",
        headers={"x-should-retry": "false"},
    )


def rate_limited(exceeded: Exceeded, headers: Mapping[str, str]) -> Rejection:
    """Say which limit is reached, and when to try again; a request that is too large never fits."""
    subject, limit, amount, _ = exceeded.cost
    what = f"{subject.measure.words} of this {subject.kind.words} (limit {limit})"
    if exceeded.too_large:
        return Rejection(
            429,
            "rate_limit_exceeded",
            f"Request too large for the {what}: it counts up to {amount}; ask for fewer tokens.",
            type=str(subject.measure),
            headers={**headers, "x-should-retry": "false"},
        )
    seconds = math.ceil(exceeded.retry_after)
    return Rejection(
        429,
        "rate_limit_exceeded",
        f"Rate limit reached for the {what}. Please try again in {seconds} s.",
        type=str(subject.measure),
        headers={
            **headers,
            "retry-after": str(seconds),
            "retry-after-ms": str(math.ceil(exceeded.retry_after * 1000)),
        },
    )


def credits_unavailable() -> Rejection:
    """Say that nobody can tell whether the account pays; what was promised before goes on."""
    message = (
        "The credits service does not answer, so this request cannot be paid for; try again in a moment."
    )
    return _unavailable("credits_unavailable", message, seconds=1)


def limits_unavailable() -> Rejection:
    """Say that nobody can tell whether the limits have room."""
    message = "Rate limits cannot be counted at the moment; try again in a moment."
    return _unavailable("limits_unavailable", message, seconds=1)


def model_unavailable(model: str, draw: Random) -> Rejection:
    """Say that nothing can answer for the model; nothing is sent to it for those who ask again meanwhile.

    Official clients wait as long as they are told, twice. Each is told another time, so that not all come
    back in the moment in which the model does.
    """
    seconds = draw.uniform(*_RETRY_SECONDS)
    return Rejection(
        503,
        "model_unavailable",
        f"The model `{model}` is not available at the moment; try again later.",
        type="server_error",
        headers={
            "retry-after": str(math.ceil(seconds)),
            "retry-after-ms": str(math.ceil(seconds * 1000)),
            "x-should-retry": "true",
        },
    )


def _model_not_found(message: str) -> Rejection:
    return Rejection(404, "model_not_found", message, param="model")


def _unavailable(code: str, message: str, *, seconds: int) -> Rejection:
    return Rejection(503, code, message, type="server_error", headers={"retry-after": str(seconds)})


def _shown(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"
