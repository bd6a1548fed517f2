"""HTTP routes of the completion service."""

from starlette.routing import BaseRoute, Route

from dozen_completion.service import PATH, CompletionService
from dozen_inference.endpoint import CompletionEndpoint


def routes(completion: CompletionService) -> list[BaseRoute]:
    """Serve `/v1/completions`."""
    return [Route(PATH, CompletionEndpoint(PATH, completion.complete), methods=["POST"])]
