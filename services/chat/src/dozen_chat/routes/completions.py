"""HTTP routes of chat completions."""

from typing import Any

from starlette.types import ASGIApp

from dozen_chassis.admission import Admission
from dozen_chat.service.completions import PATH, ChatService
from dozen_inference import cache
from dozen_inference.endpoint import CompletionEndpoint
from dozen_inference.generation import Answer
from dozen_inference.settlement import Settlements


def hot_paths(chat: ChatService, settlements: Settlements[Any]) -> dict[str, ASGIApp]:
    """Serve `/v1/chat/completions`."""

    def complete(admission: Admission, body: bytes, headers: dict[bytes, bytes]) -> Answer:
        return chat.complete(admission, body, cache.header(headers))

    return {PATH: CompletionEndpoint(complete, settlements)}
