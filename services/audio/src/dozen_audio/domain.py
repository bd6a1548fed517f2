"""Transcripts, the formats they are written in, and the voices of speech."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Word:
    """A word with its place in the recording, in seconds."""

    word: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a recording with its words; times in seconds."""

    text: str
    start: float
    end: float
    tokens: Sequence[int] = ()
    temperature: float = 0
    avg_logprob: float = 0
    compression_ratio: float = 0
    no_speech_prob: float = 0
    words: Sequence[Word] = ()


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was said in a recording."""

    milliseconds: int
    segments: Sequence[Segment] = field(default_factory=tuple)

    @property
    def text(self) -> str:
        """All that was said."""
        return "".join(segment.text for segment in self.segments).strip()

    @property
    def words(self) -> list[Word]:
        """The words of all segments, where they were asked for."""
        return [word for segment in self.segments for word in segment.words]


@dataclass(frozen=True, slots=True)
class Spoken:
    """A piece of audio and how many characters of the input it speaks."""

    audio: bytes
    characters: int


@dataclass(frozen=True, slots=True)
class Transcription:
    """A recording to be transcribed, and how."""

    model: str
    recording: bytes
    language: str | None = None
    prompt: str | None = None
    temperature: float = 0
    words: bool = False
    """Whether the place of each word is wanted, which takes a little longer."""


@dataclass(frozen=True, slots=True)
class TranscriptionRecord:
    """What was transcribed for a request, without its words."""

    request_id: str
    account: str
    model: str
    milliseconds: int


class AudioFormat(StrEnum):
    """The formats that speech is sent in."""

    MP3 = "mp3"
    OPUS = "opus"
    AAC = "aac"
    FLAC = "flac"
    WAV = "wav"
    PCM = "pcm"

    @property
    def media_type(self) -> str:
        """Content type of this format."""
        return {"mp3": "audio/mpeg", "opus": "audio/ogg"}.get(self.value, f"audio/{self.value}")


@dataclass(frozen=True, slots=True)
class Speech:
    """A text to be spoken, and how."""

    model: str
    text: str
    voice: str
    format: AudioFormat = AudioFormat.MP3
    speed: float = 1


@dataclass(frozen=True, slots=True)
class SpeechRecord:
    """What was spoken for a request, without its words."""

    request_id: str
    account: str
    model: str
    voice: str
    format: str
    characters: int


# The model has one voice; OpenAI's names stand for it so that clients which send one work unchanged.
VOICES = frozenset(
    {"heart", "alloy", "ash", "ballad", "cedar", "coral", "echo", "fable", "marin", "nova", "onyx", "sage"}
    | {"shimmer", "verse"}
)
MAX_CHARACTERS = 4096
SLOWEST, FASTEST = 0.25, 4.0


def to_srt(transcript: Transcript) -> str:
    """Write a transcript as SubRip subtitles."""
    return "\n".join(
        f"{number}\n{_span(segment, ',')}\n{segment.text.strip()}\n"
        for number, segment in enumerate(transcript.segments, 1)
    )


def to_vtt(transcript: Transcript) -> str:
    """Write a transcript as WebVTT subtitles."""
    return "\n".join(["WEBVTT\n", *(f"{_span(s, '.')}\n{s.text.strip()}\n" for s in transcript.segments)])


def to_text(transcript: Transcript) -> str:
    """Write a transcript as plain text."""
    return transcript.text + "\n"


TEXT_FORMATS: dict[str, Callable[[Transcript], str]] = {"text": to_text, "srt": to_srt, "vtt": to_vtt}


def _span(segment: Segment, point: str) -> str:
    return f"{_clock(segment.start, point)} --> {_clock(segment.end, point)}"


def _clock(seconds: float, point: str) -> str:
    minutes, milliseconds = divmod(round(seconds * 1000), 60_000)
    return f"{minutes // 60:02}:{minutes % 60:02}:{milliseconds // 1000:02}{point}{milliseconds % 1000:03}"
