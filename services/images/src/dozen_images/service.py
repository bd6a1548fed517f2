"""The use cases of the images service."""

import uuid
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen_chassis.admission import Admission
from dozen_images.domain import Analysis, Reading
from dozen_inference.local import LocalModel
from dozen_inference.usage import usage_record

Picture = TypeVar("Picture")


class Reader(Protocol[Picture]):
    """The model; its methods block."""

    def decode(self, data: bytes) -> Picture:
        """Decode an image."""
        ...

    def read(self, picture: Picture) -> Reading:
        """Find the lines of text."""
        ...


class Records(Protocol):
    """Where analyses are recorded and their events committed."""

    def transaction(self) -> AbstractAsyncContextManager["Records"]:
        """Give the same records in one transaction."""
        ...

    async def add(self, analysis: Analysis) -> bool:
        """Record an analysis; False where its request has one already."""
        ...

    async def emit(self, event: Message) -> None:
        """Publish an event once the transaction has committed."""
        ...


class ImagesService(Generic[Picture]):
    """Looks at images."""

    def __init__(self, model: LocalModel[Reader[Picture]], records: Records) -> None:
        self._model = model
        self._records = records

    async def analyze(self, admission: Admission, model: str, image: bytes) -> Analysis:
        """Read the text of an image; charge for it once per request."""
        with self._model.admit() as reader:
            picture = await self._model.run(reader.decode, image)
            reading = await self._model.run(reader.read, picture)
        analysis = Analysis(
            id=f"imga_{uuid.uuid4().hex}",
            request_id=admission.request_id,
            account=admission.account,
            model=model,
            reading=reading,
            created_at=datetime.now(UTC),
        )
        async with self._records.transaction() as records:
            if await records.add(analysis):
                await records.emit(UsageReported(records=[usage_record(admission, {"images": 1})]))
        return analysis
