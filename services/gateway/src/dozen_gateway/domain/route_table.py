"""The public routes: which service takes each, what it is charged in, and what its model must do."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dozen_gateway.domain import rejections
from dozen_gateway.domain.rejections import Rejection

PriceClass = frozenset[str]
"""The units that a request may be charged in; none where it is free."""

FREE: PriceClass = frozenset()
TOKENS: PriceClass = frozenset({"input_tokens", "cached_input_tokens", "output_tokens"})
COMPLETIONS: PriceClass = TOKENS | {"cache_hits"}
INPUT_TOKENS: PriceClass = frozenset({"input_tokens", "cached_input_tokens"})
IMAGES: PriceClass = frozenset({"images"})
AUDIO_TIME: PriceClass = frozenset({"audio_milliseconds"})
CHARACTERS: PriceClass = frozenset({"characters"})


@dataclass(frozen=True, slots=True)
class Route:
    """One public route."""

    method: str
    pattern: str
    service: str
    price_class: PriceClass
    capability: str | None = None
    """What the model named in the body must be able to do; None where the body names no model."""

    @property
    def unit(self) -> str | None:
        """Give the unit that it is charged in alone, where that is none of tokens."""
        return next(iter(self.price_class)) if len(self.price_class) == 1 else None


ROUTES = (
    Route("POST", "/v1/chat/completions", "chat", COMPLETIONS, "chat"),
    Route("POST", "/v1/responses", "chat", COMPLETIONS, "chat"),
    Route("POST", "/v1/messages", "chat", COMPLETIONS, "chat"),
    Route("POST", "/v1/completions", "completion", COMPLETIONS, "completion"),
    Route("POST", "/v1/embeddings", "embeddings", INPUT_TOKENS, "embeddings"),
    Route("POST", "/v1/images/analyses", "images", IMAGES, "images.analyses"),
    Route("POST", "/v1/audio/transcriptions", "audio", AUDIO_TIME, "audio.transcriptions"),
    Route("POST", "/v1/audio/speech", "audio", CHARACTERS, "audio.speech"),
    Route("GET", "/v1/responses/{id}", "chat", FREE),
    Route("DELETE", "/v1/responses/{id}", "chat", FREE),
    Route("POST", "/v1/responses/{id}/cancel", "chat", FREE),
    Route("GET", "/v1/responses/{id}/input_items", "chat", FREE),
    Route("POST", "/v1/conversations", "chat", FREE),
    Route("GET", "/v1/conversations/{id}", "chat", FREE),
    Route("POST", "/v1/conversations/{id}", "chat", FREE),
    Route("DELETE", "/v1/conversations/{id}", "chat", FREE),
    Route("POST", "/v1/conversations/{id}/items", "chat", FREE),
    Route("GET", "/v1/conversations/{id}/items", "chat", FREE),
    Route("GET", "/v1/conversations/{id}/items/{item_id}", "chat", FREE),
    Route("DELETE", "/v1/conversations/{id}/items/{item_id}", "chat", FREE),
    Route("POST", "/v1/moderations", "embeddings", FREE),
    Route("GET", "/v1/models", "models", FREE),
    Route("GET", "/v1/models/{model}", "models", FREE),
    Route("GET", "/v1/credits", "credits", FREE),
    Route("GET", "/v1/usage", "credits", FREE),
    Route("GET", "/v1/usage/requests", "credits", FREE),
    # What a job does is charged when it is done, as the request that it stands for.
    Route("POST", "/v1/jobs", "jobs", FREE),
    Route("GET", "/v1/jobs", "jobs", FREE),
    Route("GET", "/v1/jobs/{id}", "jobs", FREE),
    Route("POST", "/v1/jobs/{id}/cancel", "jobs", FREE),
    Route("POST", "/v1/files", "storage", FREE),
    Route("GET", "/v1/files", "storage", FREE),
    Route("GET", "/v1/files/{id}", "storage", FREE),
    Route("DELETE", "/v1/files/{id}", "storage", FREE),
    Route("GET", "/v1/files/{id}/content", "storage", FREE),
    Route("GET", "/v1/events", "events", FREE),
    Route("GET", "/v1/invoices", "credits", FREE),
    Route("GET", "/v1/invoices/{id}", "credits", FREE),
    Route("GET", "/v1/invoices/{id}/statement", "credits", FREE),
    Route("POST", "/v1/keys", "gateway", FREE),
    Route("GET", "/v1/keys", "gateway", FREE),
    Route("GET", "/v1/keys/{id}", "gateway", FREE),
    Route("POST", "/v1/keys/{id}", "gateway", FREE),
    Route("POST", "/v1/keys/{id}/rotate", "gateway", FREE),
    Route("DELETE", "/v1/keys/{id}", "gateway", FREE),
)

# A path that matches holds no character that would have to be quoted in a URL or a header.
_ID = r"[A-Za-z0-9_.:-]{1,128}"
_PARAMETERS = {
    "id": _ID,
    "item_id": _ID,
    "model": r"[A-Za-z0-9][A-Za-z0-9_.:@-]*(?:/[A-Za-z0-9][A-Za-z0-9_.:@-]*)*",
}


def find_route(method: str, path: str) -> Route | Rejection:
    """Give the route that serves a method and path."""
    routes = _LITERAL.get(path) or next((routes for form, routes in _FORMS if form.fullmatch(path)), None)
    if routes is None:
        return rejections.unknown_url(method, path)
    return routes.get(method) or rejections.method_not_allowed(method, path, routes)


def is_model_id(text: str) -> bool:
    """Tell whether a text may be the id of a model."""
    return _MODEL_ID.fullmatch(text) is not None


def endpoints(capabilities: Iterable[str]) -> list[str]:
    """Name the endpoints that a model with these capabilities serves."""
    wanted = set(capabilities)
    return [f"{route.method} {route.pattern}" for route in ROUTES if route.capability in wanted]


def _by_pattern() -> dict[str, dict[str, Route]]:
    grouped: dict[str, dict[str, Route]] = {}
    for route in ROUTES:
        grouped.setdefault(route.pattern, {})[route.method] = route
    return grouped


def _form(pattern: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\{(\w+)\}", lambda found: _PARAMETERS[found[1]], pattern))


_MODEL_ID = re.compile(_PARAMETERS["model"])
_LITERAL: Mapping[str, Mapping[str, Route]] = {
    pattern: routes for pattern, routes in _by_pattern().items() if "{" not in pattern
}
_FORMS = [(_form(pattern), routes) for pattern, routes in _by_pattern().items() if "{" in pattern]
