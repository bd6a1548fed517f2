"""gRPC servicer of the images service."""

import time

import grpc.aio

from dozen.images.v1.images_service_pb2 import AnalyzeRequest, AnalyzeResponse, Point, TextLine
from dozen.images.v1.images_service_pb2_grpc import ImagesServiceServicer
from dozen_chassis import admission
from dozen_images.service import Entry, ImagesService, Picture
from dozen_inference.settlement import Settlements


class ImagesServicer(ImagesServiceServicer):
    """Serves `dozen.images.v1.ImagesService`."""

    def __init__(
        self, images: ImagesService[Picture], settlements: Settlements[Entry], admission_key: bytes
    ) -> None:
        self._images = images
        self._settlements = settlements
        self._admission_key = admission_key

    async def Analyze(self, request: AnalyzeRequest, context: grpc.aio.ServicerContext) -> AnalyzeResponse:
        """Read the text of an image."""
        admitted = admission.verify(
            request.admission.headers, "POST /v1/images/analyses", self._admission_key, time.time()
        )
        async with self._settlements.follow(admitted):
            analysis = await self._images.analyze(admitted, request.model, request.image)
        reading = analysis.reading
        return AnalyzeResponse(
            id=analysis.id,
            text=reading.text,
            lines=[
                TextLine(text=line.text, score=line.score, box=[Point(x=p.x, y=p.y) for p in line.box])
                for line in reading.lines
            ],
            width=reading.width,
            height=reading.height,
        )
