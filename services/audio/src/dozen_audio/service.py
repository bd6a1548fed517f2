"""The use cases of the audio service."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from dozen.credits.v1.credits_pb2 import UsageRecord
from dozen_audio.domain import (
    FASTEST,
    MAX_CHARACTERS,
    SLOWEST,
    VOICES,
    AudioFormat,
    Segment,
    Speech,
    SpeechRecord,
    Spoken,
    Transcript,
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
from dozen_chassis.admission import Admission
from dozen_inference.hold import most_units
from dozen_inference.local import LocalModel
from dozen_inference.usage import usage_record, usage_reported

Samples = TypeVar("Samples")

_ENGLISH = frozenset({"en", "english"})


class Transcriber(Protocol[Samples]):
    """The speech-to-text model; its methods block."""

    def decode(self, recording: bytes, max_seconds: float) -> Samples:
        """Give the samples of an encoded recording."""
        ...

    def seconds(self, samples: Samples) -> float:
        """Give how long a recording lasts."""
        ...

    def transcribe(
        self, samples: Samples, prompt: str | None, temperature: float, words: bool
    ) -> Iterator[Segment]:
        """Give the segments of a recording, each when it has been heard."""
        ...


class Speaker(Protocol):
    """The text-to-speech model; its methods block."""

    def speak(self, text: str, audio_format: AudioFormat, speed: float) -> Iterator[Spoken]:
        """Give the audio of each sentence as soon as it is spoken; nothing where none can be said."""
        ...


class Records(Protocol):
    """Where requests are recorded and their events committed."""

    def transaction(self) -> AbstractAsyncContextManager["Records"]:
        """Give the same records in one transaction."""
        ...

    async def add_transcription(self, record: TranscriptionRecord) -> bool:
        """Record a transcription; False where its request has one already."""
        ...

    async def add_speech(self, record: SpeechRecord) -> bool:
        """Record a speech; False where its request has one already."""
        ...

    async def emit(self, event: Message) -> None:
        """Publish an event once the transaction has committed."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """What a request used and, where it did not fail, what it was."""

    usage: UsageRecord
    record: TranscriptionRecord | SpeechRecord | None = None


class Log(Protocol):
    """Where it is kept what came of requests."""

    async def put(self, entry: Entry) -> None:
        """Make an entry durable, even where the caller is cancelled meanwhile."""
        ...


async def write(records: Records, entries: list[Entry]) -> None:
    """Write the entries of many requests in one transaction; charge each request once."""
    async with records.transaction() as transaction:
        used = [entry.usage for entry in entries if await _is_first(transaction, entry)]
        if used:
            await transaction.emit(usage_reported(used))


async def _is_first(records: Records, entry: Entry) -> bool:
    match entry.record:
        case TranscriptionRecord() as transcription:
            return await records.add_transcription(transcription)
        case SpeechRecord() as speech:
            return await records.add_speech(speech)
        case None:
            return True


class AudioService(Generic[Samples]):
    """Hears and speaks."""

    def __init__(
        self,
        transcriber: LocalModel[Transcriber[Samples]],
        speaker: LocalModel[Speaker],
        log: Log,
        *,
        max_seconds: float,
    ) -> None:
        self._transcriber = transcriber
        self._speaker = speaker
        self._log = log
        self._max_seconds = max_seconds

    async def transcribe(self, admission: Admission, request: Transcription) -> Transcript:
        """Write down what is said in a recording; charge for its length, once per request."""
        if request.language and request.language.lower() not in _ENGLISH:
            raise LanguageNotSupported(param="language")
        most = most_units(admission)
        with self._transcriber.admit() as engine:
            samples = await self._transcriber.run(engine.decode, request.recording, self._max_seconds)
            milliseconds = round(engine.seconds(samples) * 1000)
            if most is not None and milliseconds > most:
                raise AudioTooLongForItsSize(param="file")
            heard = engine.transcribe(samples, request.prompt, request.temperature, request.words)
            segments = [segment async for segment in self._transcriber.iterate(heard)]
        record = TranscriptionRecord(admission.request_id, admission.account, request.model, milliseconds)
        usage = usage_record(admission, {"audio_milliseconds": milliseconds})
        await self._log.put(Entry(usage, record))
        return Transcript(milliseconds, segments)

    async def speak(self, admission: Admission, request: Speech) -> AsyncGenerator[bytes, None]:
        """Give the audio of a text as it is spoken; charge for what was spoken where the client leaves."""
        self._check(request)
        most = most_units(admission)
        if most is not None and len(request.text) > most:
            raise InvalidInput(f"A request of this size may have {most} characters of input.", param="input")
        with self._speaker.admit() as engine:
            characters = 0
            try:
                spoken = engine.speak(request.text, request.format, request.speed)
                async for piece in self._speaker.iterate(spoken):
                    characters += piece.characters
                    if piece.audio:
                        yield piece.audio
                if not characters:
                    raise InvalidInput(param="input")
                characters = len(request.text)
            finally:
                if characters:
                    await self._log.put(_spoken(admission, request, characters))

    def _check(self, request: Speech) -> None:
        if len(request.text) > MAX_CHARACTERS or not any(map(str.isalnum, request.text)):
            raise InvalidInput(param="input")
        if request.voice not in VOICES:
            raise VoiceNotFound(
                f"There is no voice '{request.voice}'; the voices are {', '.join(sorted(VOICES))}.",
                param="voice",
            )
        if not SLOWEST <= request.speed <= FASTEST:
            raise InvalidSpeed(param="speed")


def _spoken(admission: Admission, speech: Speech, characters: int) -> Entry:
    record = SpeechRecord(
        admission.request_id, admission.account, speech.model, speech.voice, speech.format, characters
    )
    return Entry(usage_record(admission, {"characters": characters}), record)
