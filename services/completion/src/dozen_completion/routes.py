"""HTTP routes of the completion service."""

from typing import Any

from starlette.types import ASGIApp

from dozen_chassis.admission import Admission
from dozen_completion.service import PATH, CompletionService
from dozen_inference.cache import HEADER
from dozen_inference.endpoint import CompletionEndpoint
from dozen_inference.generation import Answer
from dozen_inference.settlement import Settlements

_CACHE = HEADER.encode()


def hot_paths(completion: CompletionService, settlements: Settlements[Any]) -> dict[str, ASGIApp]:
    """Serve `/v1/completions`."""

    def complete(admission: Admission, body: bytes, headers: dict[bytes, bytes]) -> Answer:
        return completion.complete(admission, body, headers.get(_CACHE, b"").decode("latin-1"))

    return {PATH: CompletionEndpoint(complete, settlements)}
