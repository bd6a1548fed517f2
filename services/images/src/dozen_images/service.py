"""The use cases of the images service."""

import uuid
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_chassis.admission import Admission
from dozen_images.domain import Analysis, Reading
from dozen_images.errors import TooManyImages
from dozen_inference.hold import most_units
from dozen_inference.local import LocalModel
from dozen_inference.usage import usage_record, usage_reported

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


@dataclass(frozen=True, slots=True)
class Entry:
    """What a request used and, where it did not fail, its analysis."""

    usage: UsageRecord
    analysis: Analysis | None = None


class Log(Protocol):
    """Where it is kept what came of requests."""

    async def put(self, entry: Entry) -> None:
        """Make an entry durable, even where the caller is cancelled meanwhile."""
        ...


async def write(records: Records, entries: list[Entry]) -> None:
    """Write the entries of many requests in one transaction; charge for an analysis once per request."""
    async with records.transaction() as transaction:
        used = [
            entry.usage
            for entry in entries
            if entry.analysis is None or await transaction.add(entry.analysis)
        ]
        if used:
            await transaction.emit(usage_reported(used))


class ImagesService(Generic[Picture]):
    """Looks at images."""

    def __init__(self, model: LocalModel[Reader[Picture]], log: Log) -> None:
        self._model = model
        self._log = log

    async def analyze(self, admission: Admission, model: str, image: bytes) -> Analysis:
        """Read the text of an image; charge for it once per request."""
        if most_units(admission) == 0:
            raise TooManyImages(param="image")
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
        await self._log.put(Entry(usage_record(admission, {"images": 1}), analysis))
        return analysis
