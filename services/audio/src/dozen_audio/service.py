"""The use cases of the audio service."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Generic, Protocol, TypeVar

from google.protobuf.message import Message

from dozen.credits.v1.credits_events_pb2 import UsageReported
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
from dozen_audio.errors import InvalidInput, InvalidSpeed, LanguageNotSupported, VoiceNotFound
from dozen_chassis.admission import Admission
from dozen_inference.local import LocalModel
from dozen_inference.usage import usage_record

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


class UsageLog(Protocol):
    """Where usage is reported by requests that may be cut off."""

    async def put(self, record: UsageRecord) -> None:
        """Make a record durable, even where the caller is cancelled meanwhile."""
        ...


class AudioService(Generic[Samples]):
    """Hears and speaks."""

    def __init__(
        self,
        transcriber: LocalModel[Transcriber[Samples]],
        speaker: LocalModel[Speaker],
        records: Records,
        usage: UsageLog,
        *,
        max_seconds: float,
    ) -> None:
        self._transcriber = transcriber
        self._speaker = speaker
        self._records = records
        self._usage = usage
        self._max_seconds = max_seconds

    async def transcribe(self, admission: Admission, request: Transcription) -> Transcript:
        """Write down what is said in a recording; charge for its length, once per request."""
        if request.language and request.language.lower() not in _ENGLISH:
            raise LanguageNotSupported(param="language")
        with self._transcriber.admit() as engine:
            samples = await self._transcriber.run(engine.decode, request.recording, self._max_seconds)
            heard = engine.transcribe(samples, request.prompt, request.temperature, request.words)
            segments = [segment async for segment in self._transcriber.iterate(heard)]
            transcript = Transcript(round(engine.seconds(samples) * 1000), segments)
        record = TranscriptionRecord(
            admission.request_id, admission.account, request.model, transcript.milliseconds
        )
        async with self._records.transaction() as records:
            if await records.add_transcription(record):
                usage = usage_record(admission, {"audio_milliseconds": transcript.milliseconds})
                await records.emit(UsageReported(records=[usage]))
        return transcript

    async def speak(self, admission: Admission, request: Speech) -> AsyncGenerator[bytes, None]:
        """Give the audio of a text as it is spoken; charge for what was spoken where the client leaves."""
        self._check(request)
        with self._speaker.admit() as engine:
            await self._records.add_speech(
                SpeechRecord(
                    admission.request_id,
                    admission.account,
                    request.model,
                    request.voice,
                    request.format,
                    len(request.text),
                )
            )
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
                    await self._usage.put(usage_record(admission, {"characters": characters}))

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
