"""HTTP routes of the chat service."""

from starlette.routing import BaseRoute, Route

from dozen_chat.service.completions import PATH, ChatService
from dozen_inference.endpoint import CompletionEndpoint


def routes(chat: ChatService) -> list[BaseRoute]:
    """Serve `/v1/chat/completions`."""
    return [Route(PATH, CompletionEndpoint(PATH, chat.complete), methods=["POST"])]
