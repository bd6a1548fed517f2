"""Use cases of the images service, on a model that reads bytes."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

import pytest
from google.protobuf.message import Message

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen_chassis.admission import Admission
from dozen_images.domain import Analysis, Reading, TextLine
from dozen_images.errors import TooManyImages, UnreadableImage
from dozen_images.repository import ImagesRepository
from dozen_images.service import Entry, ImagesService, Reader, Records, write
from dozen_inference.local import LocalModel


class FakeReader:
    """An image is its text."""

    def decode(self, data: bytes) -> str:
        if not data:
            raise UnreadableImage
        return data.decode()

    def read(self, picture: str) -> Reading:
        return Reading(4, 3, [TextLine(line, 0.9, []) for line in picture.splitlines()])


@dataclass
class FakeRecords:
    """Records in memory."""

    analyses: dict[str, Analysis] = field(default_factory=dict)
    events: list[Message] = field(default_factory=list)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["FakeRecords"]:
        yield self

    async def add(self, analysis: Analysis) -> bool:
        return self.analyses.setdefault(analysis.request_id, analysis) is analysis

    async def emit(self, event: Message) -> None:
        self.events.append(event)

    async def put(self, entry: Entry) -> None:
        await write(self, [entry])


@pytest.fixture
def records() -> FakeRecords:
    return FakeRecords()


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def kept(request: pytest.FixtureRequest, records: FakeRecords) -> Records:
    if request.param == "memory":
        return records
    return ImagesRepository(request.getfixturevalue("database"))


@pytest.fixture
async def service(records: FakeRecords) -> AsyncIterator[ImagesService[str]]:
    model: LocalModel[Reader[str]] = LocalModel("fake", FakeReader, packages=[], most_requests=1)
    await model.load()
    yield ImagesService(model, records)
    model.close()


async def test_the_first_analysis_of_a_request_is_kept(kept: Records) -> None:
    reading = Reading(4, 3, [])
    first, again, other = (
        Analysis(name, request, "acme", "pp-ocrv6", reading, datetime.now(UTC))
        for name, request in (("imga_1", "req_1"), ("imga_2", "req_1"), ("imga_3", "req_2"))
    )
    async with kept.transaction() as records:
        assert await records.add(first)
    async with kept.transaction() as records:
        assert not await records.add(again)
        assert await records.add(other)


async def test_an_image_is_read_recorded_and_charged(
    service: ImagesService[str], records: FakeRecords, admission: Admission
) -> None:
    analysis = await service.analyze(admission, "pp-ocrv6", b"Hello\nworld")
    assert analysis.reading.text == "Hello\nworld"
    assert records.analyses == {"req_1": analysis}
    (event,) = records.events
    assert isinstance(event, UsageReported)
    assert dict(event.records[0].quantities) == {"images": 1}
    assert event.records[0].request_id == "req_1"


async def test_the_same_request_is_charged_once(
    service: ImagesService[str], records: FakeRecords, admission: Admission
) -> None:
    await service.analyze(admission, "pp-ocrv6", b"a")
    await service.analyze(admission, "pp-ocrv6", b"a")
    assert len(records.events) == 1


async def test_what_cannot_be_read_is_not_charged(
    service: ImagesService[str], records: FakeRecords, admission: Admission
) -> None:
    with pytest.raises(UnreadableImage):
        await service.analyze(admission, "pp-ocrv6", b"")
    assert not records.events


async def test_an_image_beyond_what_is_held_is_refused(
    service: ImagesService[str], records: FakeRecords, admission: Admission
) -> None:
    with pytest.raises(TooManyImages) as refused:
        await service.analyze(replace(admission, facts={"max-units": "0"}), "pp-ocrv6", b"a")
    assert refused.value.http.status == 400
    assert not records.events
    await service.analyze(replace(admission, facts={"max-units": "1"}), "pp-ocrv6", b"a")
    assert len(records.events) == 1
