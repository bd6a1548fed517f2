"""Bodies of the audio API, as OpenAI has them."""

from typing import Any, Literal

from pydantic import BaseModel

from dozen_audio.domain import AudioFormat, Transcript

ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]
Granularity = Literal["word", "segment"]


class Voice(BaseModel):
    """A voice by its id."""

    id: str


class SpeechRequest(BaseModel):
    """Body of `POST /v1/audio/speech`."""

    model: str
    input: str
    voice: str | Voice
    response_format: AudioFormat = AudioFormat.MP3
    speed: float = 1
    stream_format: Literal["audio"] = "audio"

    @property
    def voice_id(self) -> str:
        """Name of the voice, in whichever way it was sent."""
        return self.voice if isinstance(self.voice, str) else self.voice.id


def transcription_json(transcript: Transcript) -> dict[str, Any]:
    """Write a transcript as `json`."""
    return {"text": transcript.text, "usage": _usage(transcript)}


def transcription_verbose_json(transcript: Transcript, granularities: list[Granularity]) -> dict[str, Any]:
    """Write a transcript as `verbose_json`."""
    body: dict[str, Any] = {
        "task": "transcribe",
        "language": "english",
        "duration": transcript.milliseconds / 1000,
        "text": transcript.text,
        "usage": _usage(transcript),
    }
    if "word" in granularities:
        body["words"] = [
            {"word": word.word, "start": word.start, "end": word.end} for word in transcript.words
        ]
    if "segment" in granularities:
        body["segments"] = [
            {
                "id": number,
                "seek": round(segment.start * 100),
                "start": segment.start,
                "end": segment.end,
                "text": segment.text,
                "tokens": list(segment.tokens),
                "temperature": segment.temperature,
                "avg_logprob": segment.avg_logprob,
                "compression_ratio": segment.compression_ratio,
                "no_speech_prob": segment.no_speech_prob,
            }
            for number, segment in enumerate(transcript.segments)
        ]
    return body


def _usage(transcript: Transcript) -> dict[str, Any]:
    return {"type": "duration", "seconds": -(-transcript.milliseconds // 1000)}
