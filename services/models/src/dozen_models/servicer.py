"""gRPC servicer of the models service."""

import asyncio
from collections.abc import AsyncIterator

import grpc.aio

from dozen.models.v1.models_service_pb2 import (
    GetModelRequest,
    GetModelResponse,
    ListModelsRequest,
    ListModelsResponse,
    WatchHealthRequest,
    WatchHealthResponse,
)
from dozen.models.v1.models_service_pb2_grpc import ModelsServiceServicer
from dozen_models.domain.health import HealthState
from dozen_models.service.catalogue import CatalogueService
from dozen_models.service.health import HealthService
from dozen_models.service.messages import HEALTH_NUMBERS, model_message, price_message, timestamp


class ModelsServicer(ModelsServiceServicer):
    """Serves `dozen.models.v1.ModelsService`."""

    def __init__(self, catalogue: CatalogueService, health: HealthService, stopping: asyncio.Event) -> None:
        self._catalogue = catalogue
        self._health = health
        self._stopping = stopping

    async def ListModels(
        self, request: ListModelsRequest, context: grpc.aio.ServicerContext
    ) -> ListModelsResponse:
        models = await self._catalogue.models()
        return ListModelsResponse(models=[model_message(model.card, model.created_at) for model in models])

    async def GetModel(self, request: GetModelRequest, context: grpc.aio.ServicerContext) -> GetModelResponse:
        model = await self._catalogue.model(request.model_id)
        return GetModelResponse(
            model=model_message(model.card, model.created_at),
            price=price_message(model.card.id, model.price),
        )

    async def WatchHealth(
        self, request: WatchHealthRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[WatchHealthResponse]:
        states = self._health.watch()
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            while True:
                arriving = asyncio.ensure_future(anext(states))
                try:
                    await asyncio.wait((arriving, stopped), return_when=asyncio.FIRST_COMPLETED)
                    if not arriving.done():
                        return
                    yield _watched(*arriving.result())
                finally:
                    arriving.cancel()
        finally:
            stopped.cancel()


def _watched(deployment_id: str, state: HealthState) -> WatchHealthResponse:
    return WatchHealthResponse(
        deployment_id=deployment_id,
        health=HEALTH_NUMBERS[state.health],
        reason=state.reason,
        observed_at=timestamp(state.observed_at) if state.observed_at else None,
    )
