"""The embeddings service as moderator, asked with a deadline; without it nothing passes."""

import logging
from collections.abc import Sequence

import grpc.aio

from dozen.embeddings.v1.embeddings_service_pb2 import ModerateRequest
from dozen.embeddings.v1.embeddings_service_pb2_grpc import EmbeddingsServiceStub
from dozen_chassis.errors import DependencyUnavailable
from dozen_chassis.grpc import RemoteError, remote_errors
from dozen_inference.filter import FilterUnavailable

log = logging.getLogger(__name__)

_DEADLINE_SECONDS = 10.0


class ModerationClient:
    """Asks `dozen.embeddings.v1.EmbeddingsService`."""

    def __init__(self, channel: grpc.aio.Channel, *, deadline: float = _DEADLINE_SECONDS) -> None:
        self._stub = EmbeddingsServiceStub(channel)
        self._deadline = deadline

    async def categories(self, texts: Sequence[str]) -> list[Sequence[str]]:
        """Give the categories of harm that each text is in."""
        try:
            with remote_errors():
                response = await self._stub.Moderate(ModerateRequest(inputs=texts), timeout=self._deadline)
        except (DependencyUnavailable, RemoteError) as error:
            log.warning("the content filter does not answer: %s", error.message)
            raise FilterUnavailable(headers={"retry-after": "1"}) from error
        return [list(result.flagged) for result in response.results]
