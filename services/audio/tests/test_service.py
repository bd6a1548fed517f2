"""Use cases of the audio service, on models that hear and speak bytes."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from google.protobuf.message import Message

from dozen.credits.v1.credits_events_pb2 import UsageReported
from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_audio.domain import (
    AudioFormat,
    Segment,
    Speech,
    SpeechRecord,
    Spoken,
    Transcription,
    TranscriptionRecord,
)
from dozen_audio.errors import (
    AudioTooLongForItsSize,
    InvalidInput,
    InvalidSpeed,
    LanguageNotSupported,
    VoiceNotFound,
)
from dozen_audio.repository import AudioRepository
from dozen_audio.service import AudioService, Entry, Records, Speaker, Transcriber, write
from dozen_chassis.admission import Admission
from dozen_inference.local import LocalModel, ModelOverloaded


class FakeTranscriber:
    """A word takes a second."""

    def decode(self, recording: bytes, max_seconds: float) -> str:
        return recording.decode()

    def seconds(self, samples: str) -> float:
        return len(samples.split())

    def transcribe(
        self, samples: str, prompt: str | None, temperature: float, words: bool
    ) -> Iterator[Segment]:
        assert "never" not in samples
        for second, word in enumerate(samples.split()):
            yield Segment(f" {word}", second, second + 1)


class FakeSpeaker:
    """A sentence sounds as it is written, in ASCII."""

    def speak(self, text: str, audio_format: AudioFormat, speed: float) -> Iterator[Spoken]:
        for sentence in text.split(" "):
            if sentence.isascii():
                yield Spoken(sentence.encode(), len(sentence))


@dataclass
class FakeRecords:
    """Records in memory."""

    transcriptions: dict[str, TranscriptionRecord] = field(default_factory=dict)
    speeches: dict[str, SpeechRecord] = field(default_factory=dict)
    usage: list[UsageRecord] = field(default_factory=list)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["FakeRecords"]:
        yield self

    async def add_transcription(self, record: TranscriptionRecord) -> bool:
        return self.transcriptions.setdefault(record.request_id, record) is record

    async def add_speech(self, record: SpeechRecord) -> bool:
        return self.speeches.setdefault(record.request_id, record) is record

    async def emit(self, event: Message) -> None:
        assert isinstance(event, UsageReported)
        self.usage.extend(event.records)

    async def put(self, entry: Entry) -> None:
        await write(self, [entry])


@pytest.fixture
def records() -> FakeRecords:
    return FakeRecords()


@pytest.fixture(params=["memory", pytest.param("postgres", marks=pytest.mark.integration)])
def kept(request: pytest.FixtureRequest, records: FakeRecords) -> Records:
    if request.param == "memory":
        return records
    return AudioRepository(request.getfixturevalue("database"))


@pytest.fixture
async def audio(records: FakeRecords) -> AsyncIterator[AudioService[str]]:
    transcriber: LocalModel[Transcriber[str]] = LocalModel(
        "ear", FakeTranscriber, packages=[], most_requests=1
    )
    speaker: LocalModel[Speaker] = LocalModel("mouth", FakeSpeaker, packages=[], most_requests=1)
    await transcriber.load()
    await speaker.load()
    yield AudioService(transcriber, speaker, records, max_seconds=60)
    transcriber.close()
    speaker.close()


def speech(text: str = "one two three", voice: str = "alloy", speed: float = 1) -> Speech:
    return Speech("hibari", text, voice, AudioFormat.PCM, speed)


async def test_a_recording_is_written_down_recorded_and_charged_once(
    audio: AudioService[str], records: FakeRecords, admission: Admission
) -> None:
    request = Transcription("whisper-tiny.en", b"hello there", language="en")
    transcript = await audio.transcribe(admission, request)
    await audio.transcribe(admission, request)
    assert transcript.text == "hello there"
    assert records.transcriptions["req_1"].milliseconds == 2000
    assert [dict(record.quantities) for record in records.usage] == [{"audio_milliseconds": 2000}]


async def test_other_languages_than_english_are_refused(
    audio: AudioService[str], admission: Admission
) -> None:
    with pytest.raises(LanguageNotSupported):
        await audio.transcribe(admission, Transcription("whisper-tiny.en", b"hallo", language="de"))


async def test_a_recording_that_is_longer_than_is_held_for_is_refused_before_it_is_heard(
    audio: AudioService[str], records: FakeRecords, admission: Admission
) -> None:
    held = replace(admission, facts={**admission.facts, "max-units": "2000"})
    with pytest.raises(AudioTooLongForItsSize) as refused:
        await audio.transcribe(held, Transcription("whisper-tiny.en", b"never so long"))
    assert (refused.value.http.status, refused.value.param) == (400, "file")
    assert not records.usage
    assert (await audio.transcribe(held, Transcription("whisper-tiny.en", b"so long"))).milliseconds == 2000


async def test_a_text_with_more_characters_than_are_held_for_is_refused(
    audio: AudioService[str], records: FakeRecords, admission: Admission
) -> None:
    held = replace(admission, facts={**admission.facts, "max-units": "13"})
    with pytest.raises(InvalidInput, match="13 characters"):
        await anext(audio.speak(held, speech("one two threee")))
    assert not records.usage
    assert [piece async for piece in audio.speak(held, speech())] == [b"one", b"two", b"three"]


async def test_speech_comes_in_pieces_and_is_charged_by_its_characters(
    audio: AudioService[str], records: FakeRecords, admission: Admission
) -> None:
    assert [piece async for piece in audio.speak(admission, speech())] == [b"one", b"two", b"three"]
    assert records.speeches["req_1"].characters == 13
    assert [dict(record.quantities) for record in records.usage] == [{"characters": 13}]


async def test_the_first_record_of_a_request_is_kept(kept: Records) -> None:
    async with kept.transaction() as records:
        assert await records.add_transcription(TranscriptionRecord("req_1", "acme", "ear", 2000))
        assert await records.add_speech(SpeechRecord("req_1", "acme", "mouth", "heart", "mp3", 12))
    async with kept.transaction() as records:
        assert not await records.add_transcription(TranscriptionRecord("req_1", "acme", "ear", 1))
        assert not await records.add_speech(SpeechRecord("req_1", "acme", "mouth", "heart", "wav", 1))
        assert await records.add_transcription(TranscriptionRecord("req_2", "acme", "ear", 1))
        assert await records.add_speech(SpeechRecord("req_2", "acme", "mouth", "heart", "wav", 1))


async def test_a_client_that_leaves_is_charged_for_what_was_spoken(
    audio: AudioService[str], records: FakeRecords, admission: Admission
) -> None:
    pieces = audio.speak(admission, speech())
    await anext(pieces)
    await anext(pieces)
    await pieces.aclose()
    assert [dict(record.quantities) for record in records.usage] == [{"characters": 6}]
    assert records.speeches["req_1"].characters == 6


async def test_a_client_that_leaves_makes_room_for_the_next(
    audio: AudioService[str], admission: Admission
) -> None:
    pieces = audio.speak(admission, speech())
    await anext(pieces)
    with pytest.raises(ModelOverloaded):
        await anext(audio.speak(admission, speech()))
    await pieces.aclose()
    assert await anext(audio.speak(admission, speech())) == b"one"


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        (speech(text=""), InvalidInput),
        (speech(text=" ?! "), InvalidInput),
        (speech(text="中文"), InvalidInput),
        (speech(text="a" * 4097), InvalidInput),
        (speech(voice="nobody"), VoiceNotFound),
        (speech(speed=5), InvalidSpeed),
    ],
)
async def test_speech_that_cannot_be_is_refused(
    audio: AudioService[str],
    records: FakeRecords,
    admission: Admission,
    refused: Speech,
    error: type[Exception],
) -> None:
    with pytest.raises(error):
        await anext(audio.speak(admission, refused))
    assert not records.usage
