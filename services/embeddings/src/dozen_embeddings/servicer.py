"""gRPC servicer of the embeddings service."""

import time
from array import array

import grpc.aio

from dozen.embeddings.v1.embeddings_service_pb2 import (
    EmbedRequest,
    EmbedResponse,
    ModerateRequest,
    ModerateResponse,
    Moderation,
    Vector,
)
from dozen.embeddings.v1.embeddings_service_pb2_grpc import EmbeddingsServiceServicer
from dozen_chassis import admission
from dozen_embeddings.service.embeddings import EmbeddingsService
from dozen_embeddings.service.moderations import ModerationService
from dozen_inference.settlement import Settlements, Used


class EmbeddingsServicer(EmbeddingsServiceServicer):
    """Serves `dozen.embeddings.v1.EmbeddingsService`."""

    def __init__(
        self,
        embeddings: EmbeddingsService,
        moderations: ModerationService,
        settlements: Settlements[Used],
        admission_key: bytes,
    ) -> None:
        self._embeddings = embeddings
        self._moderations = moderations
        self._settlements = settlements
        self._admission_key = admission_key

    async def Embed(self, request: EmbedRequest, context: grpc.aio.ServicerContext) -> EmbedResponse:
        """Give the vector of each input."""
        admitted = admission.verify(
            request.admission.headers, "POST /v1/embeddings", self._admission_key, time.time()
        )
        async with self._settlements.follow(admitted):
            found = await self._embeddings.embed(admitted, list(request.inputs))
        return EmbedResponse(
            vectors=[Vector(values=array("f", embedding.vector)) for embedding in found],
            input_tokens=sum(embedding.tokens for embedding in found),
        )

    async def Moderate(self, request: ModerateRequest, context: grpc.aio.ServicerContext) -> ModerateResponse:
        """Give what is found in each input."""
        found = await self._moderations.moderate(list(request.inputs))
        return ModerateResponse(
            results=[
                Moderation(scores=moderation.scores, flagged=sorted(moderation.flagged))
                for moderation in found
            ]
        )
